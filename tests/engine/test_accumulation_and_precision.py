"""Ways to train with less memory, other arithmetic or other rates: what must not change does not, what should does."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import Metric, Note, StageEvent
from panollava.model.panollava import Batch
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.stages import Stage
from panollava.training import memory
from panollava.training.data import Collate, Samples, Split
from panollava.training.devices import trainer_of
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.optimizer import adamw
from panollava.training.saving import Saver
from panollava.training.steps import Share
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import read_checkpoint

Train = Callable[..., Path]


@pytest.fixture
def train(config: RunConfig, tmp_path: Path) -> Train:
    """Train stage resampler with some settings changed; the directory."""

    def run(name: str, *, run: dict[str, Any] | None = None, stage: Stage = Stage.resampler, **settings: Any) -> Path:
        changed = config.stages[stage].model_copy(update={"batch_size": 16} | settings)
        stages = config.stages.model_copy(update={str(stage): changed})
        train_stage(StageJob(config.model_copy(update={"stages": stages} | (run or {})), stage, tmp_path / name), StopRequest(tmp_path / name))
        return tmp_path / name

    return run


def told(directory: Path, name: str = "train_loss") -> list[float]:
    found = (event for _, event in events.read(directory / events.EVENTS_FILE))
    return [event.values[name] for event in found if isinstance(event, Metric) and name in event.values]


def test_accumulated_steps_are_those_of_the_whole_batch_though_answers_differ_in_length(train: Train) -> None:
    whole, accumulated = train("whole"), train("accumulated", accumulation=4)
    for name in ("train_loss", "grad_norm", "val_loss"):
        assert told(accumulated, name) == pytest.approx(told(whole, name), rel=2e-5), name


def test_micro_batches_weigh_as_much_as_they_have_supervised_tokens(config: RunConfig, split: Split, prompter: Prompter) -> None:
    """The mean of the micro-batches' means, which others took for years, is another number."""
    pairs = Samples(split, by_row=True).pairs[:8]
    step = Share(Collate(split, prompter), size=2, rank=0, ranks=1)(pairs)
    assert len(set(step.weights)) > 1
    model = build(config).model.eval()
    with torch.no_grad():
        losses = [float(model(batch).mean) for batch in step.batches]
        whole = model(Collate(split, prompter)(pairs))
    weighted = sum(loss * weight for loss, weight in zip(losses, step.weights, strict=True)) / sum(step.weights)
    assert sum(step.weights) == whole.tokens
    assert weighted == pytest.approx(float(whole.mean), rel=1e-6)
    assert sum(losses) / len(losses) != pytest.approx(float(whole.mean), rel=1e-3)


def test_ranks_share_a_step_without_a_sample_lost_or_doubled() -> None:
    pairs = [(i, i) for i in range(11)]

    def collate(part: list[tuple[int, int]]) -> Batch:
        none = torch.zeros((len(part), 0), dtype=torch.long)
        return Batch(torch.zeros(len(part)), torch.tensor([image for image, _ in part]), none, none, none)

    steps = [Share(collate, size=2, rank=rank, ranks=3)(pairs) for rank in range(3)]
    assert {len(step.batches) for step in steps} == {2}
    drawn = [int(i) for step in steps for batch, weight in zip(step.batches, step.weights, strict=True) if weight for i in batch.image_index]
    assert sorted(drawn) == list(range(11))
    first = sorted(int(i) for step in steps for i in step.batches[0].image_index)
    assert first == list(range(6)), "together they are the first micro-batch of a single process"
    alone = [Share(collate, size=2, rank=rank, ranks=2)([(7, 7)]) for rank in range(2)]
    assert [step.weights for step in alone] == [(1,), (0,)]


def test_stage_vision_accumulates_whole_batches_of_eight_or_more(train: Train, config: RunConfig) -> None:
    assert told(train("two", stage=Stage.vision, batch_size=16, accumulation=2))
    with pytest.raises(BadInput, match="statistics across at least 64"):
        train("few", stage=Stage.vision, batch_size=64, accumulation=2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_in_fp32_weights_and_keeps_its_loss_scale(train: Train, precision: str) -> None:
    full, half = train("full"), train("half", run={"precision": precision})
    assert told(half)[0] == pytest.approx(told(full)[0], rel=0.01)
    assert told(half)[0] != told(full)[0]
    assert told(half)[-1] < told(half)[0]
    checkpoint = read_checkpoint(half / "checkpoints" / "last.ckpt")
    assert all(tensor.dtype is torch.float32 for tensor in checkpoint["state_dict"].values())
    assert ("scale" in checkpoint["panollava"]["scaler"]) == (precision == "fp16")


def test_fp16_goes_on_with_the_loss_scale_it_had_found(train: Train, config: RunConfig, tmp_path: Path) -> None:
    """It begins at 65,536 and is halved until the gradients fit; those first steps are left out. From the start again, others would be."""

    class AfterTwoSteps(StopRequest):
        def __bool__(self) -> bool:
            return len(told(tmp_path / "stopped")) >= 2 if (tmp_path / "stopped" / events.EVENTS_FILE).exists() else False

    alone = train("alone", run={"precision": "fp16"}, max_steps=4)
    changed = config.stages.resampler.model_copy(update={"batch_size": 16, "max_steps": 4})
    fp16 = config.model_copy(update={"precision": "fp16", "stages": config.stages.model_copy(update={"resampler": changed})})
    with pytest.raises(Stopped):
        train_stage(StageJob(fp16, Stage.resampler, tmp_path / "stopped"), AfterTwoSteps(tmp_path / "stopped"))
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["panollava"]["scaler"]["scale"] < 65536
    train_stage(StageJob(fp16, Stage.resampler, tmp_path / "stopped", resume=last), StopRequest(tmp_path / "stopped"))
    assert told(tmp_path / "stopped") == told(alone)


def test_fp16_in_stage_vision_takes_its_loss_in_fp32(train: Train) -> None:
    assert told(train("half", stage=Stage.vision, run={"precision": "fp16"})) == pytest.approx(told(train("full", stage=Stage.vision)), rel=0.02)


@pytest.mark.parametrize("stage", [Stage.resampler, Stage.finetune])
def test_recomputed_activations_give_the_same_losses_also_through_a_frozen_language_model(
    train: Train, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    recomputed: list[int] = []
    honest = memory.checkpoint
    monkeypatch.setattr(memory, "checkpoint", lambda *arguments, **more: (recomputed.append(1), honest(*arguments, **more))[1])
    saved = train("saved", stage=stage, run={"gradient_checkpointing": True})
    assert recomputed, "a frozen model in evaluation mode switches transformers' own checkpointing off without a word"
    assert told(saved) == pytest.approx(told(train("kept", stage=stage)), rel=1e-6)


def test_no_activation_of_a_layers_inside_is_kept_when_it_is_recomputed(config: RunConfig, batch: Batch) -> None:
    def kept(*, recompute: bool) -> int:
        model = build(config).model
        assert model.language is not None
        model.language.requires_grad_(False).eval()
        if recompute:
            assert memory.recompute_activations(model.language) == model.language.config.num_hidden_layers
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (sizes.append(tensor.nbytes), tensor)[1], lambda tensor: tensor):
            model(batch)
        return sum(sizes)

    assert kept(recompute=True) < kept(recompute=False) / 1.5


def test_compiled_parts_are_the_encoders_and_keep_the_names_of_their_tensors(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    directory = train("compiled", run={"compile": True})
    assert compiled == ["SiglipVisionModel", "Qwen2ForCausalLM"]
    assert all("_orig_mod" not in name for name in read_checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"])


def test_the_fused_optimizer_takes_the_same_steps(train: Train) -> None:
    assert told(train("fused", run={"fused_adamw": True})) == pytest.approx(told(train("plain")), rel=1e-5)


@pytest.fixture
def free_algorithms() -> Iterator[None]:
    """Deterministic algorithms are a switch of the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)


def test_deterministic_allows_only_algorithms_that_are(train: Train, free_algorithms: None) -> None:
    train("fixed", run={"deterministic": True})
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.flash_sdp_enabled()


def test_each_part_has_its_own_rate_and_only_matrices_decay(config: RunConfig) -> None:
    settings = config.stages.resampler.model_copy(update={"vision_lr": 1e-5, "projector_lr": 1e-3, "lr": 1e-4})
    module = StageModule(build(config), config, Stage.resampler, steps=10)
    optimizer = adamw(module, settings, fused=False)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for group in optimizer.param_groups:
        for name in (names[id(parameter)] for parameter in group["params"]):
            assert group["lr"] == (1e-5 if name.startswith("model.vision.") else 1e-3), name
            exempt = name.endswith("bias") or "norm" in name or "embedding.weight" in name or name in ("model.resampler.1.weight",)
            assert bool(group["weight_decay"]) == (not exempt or "patch_embedding.weight" in name), name


def test_a_low_rate_for_an_untrained_bridge_is_warned_of(train: Train) -> None:
    def warned(directory: Path) -> bool:
        notes = (event for _, event in events.read(directory / events.EVENTS_FILE))
        return any("projector_lr 1e-3 is usual" in event.text for event in notes if isinstance(event, Note))

    assert warned(train("readme", lr=2e-5))
    assert not warned(train("own rate", lr=2e-5, projector_lr=1e-3))


def test_a_stage_without_progress_ends_early_and_succeeds_with_its_best(train: Train) -> None:
    directory = train("early", epochs=9, max_steps=None, batch_size=160, lr=1e-12, vision_lr=1e-12, patience=2)
    assert len(told(directory, "val_loss")) < 9
    found = [event for _, event in events.read(directory / events.EVENTS_FILE)]
    assert any(isinstance(event, Note) and "Ended early: 2 validations in a row" in event.text for event in found)
    last = found[-1]
    assert isinstance(last, StageEvent)
    assert last.status == "succeeded"
    best = min(range(len(told(directory, "val_loss"))), key=told(directory, "val_loss").__getitem__)
    assert f"epoch={best:02d}-" in str(last.best)


def test_a_stage_that_ended_early_does_not_go_on_when_it_is_resumed(train: Train, config: RunConfig) -> None:
    settings: dict[str, Any] = {"epochs": 9, "max_steps": None, "batch_size": 160, "lr": 1e-12, "vision_lr": 1e-12, "patience": 1}
    directory = train("early", **settings)
    stages = config.stages.model_copy(update={"resampler": config.stages.resampler.model_copy(update=settings)})
    before = told(directory)
    last = directory / "checkpoints" / "last.ckpt"
    train_stage(StageJob(config.model_copy(update={"stages": stages}), Stage.resampler, directory, resume=last), StopRequest(directory))
    assert told(directory) == before


def test_a_stage_that_ended_early_goes_on_with_more_patience(train: Train, config: RunConfig, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 4, "max_steps": None, "batch_size": 160, "lr": 1e-12, "vision_lr": 1e-12, "patience": 1}
    directory = train("early and on", **settings)
    ended = len(told(directory, "val_loss"))
    changed = config.stages.resampler.model_copy(update=settings | {"patience": 9})
    more = config.model_copy(update={"stages": config.stages.model_copy(update={"resampler": changed})})
    last = directory / "checkpoints" / "last.ckpt"
    train_stage(StageJob(more, Stage.resampler, tmp_path, resume=last), StopRequest(tmp_path))
    assert ended < 4
    assert len(told(tmp_path, "val_loss")) == 4 - ended


def test_minutes_are_counted_from_the_last_checkpoint(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at this clock finds it a minute later: one look a step, one a checkpoint."""
    minutes = iter(range(0, 60 * 1000, 60))
    monkeypatch.setattr("panollava.training.fit.Saver", partial(Saver, clock=lambda: float(next(minutes))))
    changed = config.stages.resampler.model_copy(update={"save_every_minutes": 3.0, "max_steps": 8})
    stages = config.stages.model_copy(update={"resampler": changed})
    train_stage(StageJob(config.model_copy(update={"stages": stages}), Stage.resampler, tmp_path), StopRequest(tmp_path))
    assert sorted(rundir.read_note(path).step for path in (tmp_path / "checkpoints").glob("step=*.ckpt")) == [3, 6]


def test_more_gpus_than_there_are_and_nodes_without_torchrun_are_refused(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="devices is 2, and 1 GPUs"):
        trainer_of(config.model_copy(update={"devices": 2}))
    with pytest.raises(BadInput, match="torchrun --nnodes 2"):
        trainer_of(config.model_copy(update={"num_nodes": 2}))


def test_a_model_whose_layers_cannot_be_recomputed_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panollava.training.fit.recompute_activations", lambda part: 0)
    with pytest.raises(BadInput, match="gradient_checkpointing is set, but SiglipVisionModel has no layers"):
        train("refused", run={"gradient_checkpointing": True})
