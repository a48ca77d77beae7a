"""Memory that runs out: the stop says what to change and to what; with auto_batch the same steps are taken in smaller micro-batches, visibly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from panollava import events, rundir
from panollava.cli import app
from panollava.config import RunConfig
from panollava.errors import BadInput, OutOfMemory
from panollava.evaluation.answer import Answerer
from panollava.events import Metric, Note, StageEvent
from panollava.model.panollava import Batch, PanoLlava
from panollava.model.text import Prompter
from panollava.shortage import Shortage
from panollava.stages import Stage
from panollava.training.data import Collate, Samples, Split
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.out_of_memory import kind_of
from panollava.training.steps import Share, Step, in_parts
from panollava.training.stop import Stopped, StopRequest

Train = Callable[..., Path]
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB."


def changed(config: RunConfig, stage: Stage, run: dict[str, Any] | None = None, **settings: Any) -> RunConfig:
    stages = config.stages.model_copy(update={str(stage): config.stages[stage].model_copy(update=settings)})
    return config.model_copy(update={"stages": stages, "example_predictions": 0} | (run or {}))


@pytest.fixture
def train(config: RunConfig, tmp_path: Path) -> Train:
    """Train stage resampler with some settings changed; the directory."""

    def run(name: str, *, stage: Stage = Stage.resampler, run: dict[str, Any] | None = None, resume: Path | None = None, **settings: Any) -> Path:
        directory = tmp_path / name
        train_stage(StageJob(changed(config, stage, run, **settings), stage, directory, resume=resume), StopRequest(directory))
        return directory

    return run


AUTO = {"auto_batch": True}


def told(directory: Path) -> list[events.Event]:
    return [event for _, event in events.read(directory / events.EVENTS_FILE)]


def values(directory: Path, name: str) -> dict[int, float]:
    return {event.step: event.values[name] for event in told(directory) if isinstance(event, Metric) and name in event.values}


def warnings(directory: Path) -> list[str]:
    return [event.text for event in told(directory) if isinstance(event, Note) and event.level == "warning" and "projector_lr" not in event.text]


def outcome(directory: Path) -> StageEvent:
    *_, last = (event for event in told(directory) if isinstance(event, StageEvent))
    return last


class Full(torch.autograd.Function):
    """Passes forward what it is given, and has no room for its gradient."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        raise torch.OutOfMemoryError(FULL)


class Room:
    """Memory for so many samples at once, in training or in validation, from the `first` larger forward pass on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.training: float = np.inf
        self.validating: float = np.inf
        self.first = 1
        self.error: BaseException | None = None
        """In the forward pass; else the gradient does not fit."""
        self.largest = 0
        embed, patches = PanoLlava.embed, PanoLlava.patches

        def embedded(model: PanoLlava, input_ids: Tensor, image_tokens: Tensor) -> Tensor:
            return self.passed(embed(model, input_ids, image_tokens))

        def seen(model: PanoLlava, pixels: Tensor) -> Tensor:
            grid = patches(model, pixels)
            return self.passed(grid) if model.language is None else grid

        monkeypatch.setattr(PanoLlava, "embed", embedded)
        monkeypatch.setattr(PanoLlava, "patches", seen)

    def passed(self, tensor: Tensor) -> Tensor:
        learns = torch.is_grad_enabled()
        if len(tensor) > (self.training if learns else self.validating):
            self.first -= 1
            if self.first < 1 and learns and self.error is None:
                return Full.apply(tensor)  # type: ignore[no-any-return, no-untyped-call]
            if self.first < 1:
                raise self.error or torch.OutOfMemoryError(FULL)
        self.largest = max(self.largest, len(tensor) if learns else 0)
        return tensor


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


# recognised -----------------------------------------------------------------


def test_real_errors_of_torch_and_numpy_are_recognised() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 60, dtype=np.uint8)
    assert kind_of(of_torch.value) == kind_of(of_numpy.value) == "host"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError(FULL), "device"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), "device"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "device"),
        (MemoryError(), "host"),
        (OSError(12, "Cannot allocate memory"), "host"),
        (OSError(28, "No space left on device"), None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), None),
        (ValueError("CUDA out of memory"), None),
    ],
)
def test_what_may_be_something_else_is_not_taken_for_it(error: Exception, kind: str | None) -> None:
    assert kind_of(error) == kind


# the stop -------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")])
def test_the_stop_says_what_to_change_and_to_what(train: Train, room: Room, tmp_path: Path, error: Exception | None) -> None:
    room.training, room.first, room.error = 4, 3, error
    with pytest.raises(OutOfMemory):
        train("full")
    last = outcome(tmp_path / "full")
    assert (last.status, last.reason, last.step, last.suggestion) == ("failed", "out_of_host_memory", 3, {"accumulation": 2})
    first, cause = str(last.detail).split("\n")
    assert first.startswith(
        "Out of memory on the host in step 3 (micro-batches of 8). Set --accumulation 2 (micro-batches of 4, the same batch of 8)"
    )
    for words in ("--auto-batch (it does that by itself)", "--gradient-checkpointing", "--precision bf16", "--view-size"):
        assert words in first
    assert cause == (FULL if error is None else str(error) or "MemoryError")
    assert warnings(tmp_path / "full") == []


def test_what_is_set_already_is_not_advised(train: Train, room: Room, tmp_path: Path) -> None:
    room.training = 0
    with pytest.raises(OutOfMemory):
        train("full", run={"gradient_checkpointing": True, "precision": "bf16", "pool": 4, **AUTO}, accumulation=8)
    last = outcome(tmp_path / "full")
    assert last.suggestion == {}
    assert str(last.detail).startswith("Out of memory on the host in step 1 (micro-batches of 1). Fewer or smaller views")


def test_the_terminal_has_the_message_and_no_traceback(config: RunConfig, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    room.training = 4
    (tmp_path / "run.json").write_text(changed(config, Stage.resampler).model_dump_json())
    done = CliRunner().invoke(app, ["train", "--config", "run.json", "--stage", "resampler"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "panollava: Out of memory on the host in step 1" in done.stderr
    (log,) = (tmp_path / "logs").iterdir()
    assert "E Out of memory on the host in step 1" in log.read_text()
    assert "Traceback" not in done.output + done.stderr + log.read_text()


@pytest.mark.parametrize(
    ("holder", "name", "stage", "doing", "suggestion"),
    [
        (PanoLlava, "patches", Stage.finetune, "while features of the frozen vision encoder were computed", {"cache": "views"}),
        (Answerer, "answer", Stage.resampler, "while example predictions were decoded at step 1", {"example_predictions": 2}),
        (torch.optim.AdamW, "step", Stage.resampler, "while the optimizer took step 1", {"fused_adamw": True}),
        (Collate, "_pixels", Stage.resampler, "outside of a step", {}),
    ],
)
def test_what_was_being_done_is_named(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, stage: Stage, doing: str, suggestion: dict[str, Any]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(holder, name, full)
    with pytest.raises(OutOfMemory, match=doing):
        train("full", stage=stage, run={"example_predictions": 4, "cache_dir": str(tmp_path / "cache"), **AUTO}, max_steps=1)
    last = outcome(tmp_path / "full")
    assert (last.reason, last.suggestion) == ("out_of_host_memory", suggestion)
    assert warnings(tmp_path / "full") == [], "nothing was halved: it would not have helped"


# what is suggested ----------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "batch", "accumulation", "devices", "samples", "suggested"),
    [
        (Stage.resampler, 8, 1, 1, None, {"accumulation": 2}),
        (Stage.resampler, 6, 2, 1, None, {"accumulation": 6}),
        (Stage.resampler, 5, 1, 1, None, {"accumulation": 5}),
        (Stage.resampler, 8, 2, 2, None, {"accumulation": 4}),
        (Stage.resampler, 8, 4, 2, None, {"gradient_checkpointing": True}),
        (Stage.vision, 32, 1, 1, 32, {"accumulation": 2}),
        (Stage.vision, 32, 4, 1, 32, {"gradient_checkpointing": True}),
        (Stage.vision, 24, 2, 1, 24, {"batch_size": 16}),
        (Stage.vision, 12, 1, 1, 12, {"batch_size": 8}),
        (Stage.vision, 8, 1, 1, 8, {"gradient_checkpointing": True}),
        (Stage.vision, 32, 1, 1, 20, {"batch_size": 10}),
    ],
)
def test_what_is_suggested_first_is_possible(
    stage: Stage, batch: int, accumulation: int, devices: int, samples: int | None, suggested: dict[str, int]
) -> None:
    config = changed(RunConfig(devices=devices, stage=(stage,)), stage, batch_size=batch, accumulation=accumulation)
    first, *_ = Shortage(config, stage, "step", samples=samples).changes()
    assert {first.name: first.value} == suggested
    for name, value in suggested.items():
        (config.model_copy(update={name: value}) if name in RunConfig.model_fields else changed(config, stage, **{name: value})).check()


def test_an_overlap_loss_beside_the_language_loss_keeps_its_eight_panoramas_too() -> None:
    config = changed(RunConfig(overlap_loss_weight=0.1), Stage.resampler, batch_size=16, accumulation=2)
    assert Shortage(config, Stage.resampler, "step").halved() is None
    assert Shortage(config.with_accumulation(Stage.resampler, 1), Stage.resampler, "step").halved() == 2


def test_the_machines_memory_beside_a_gpu_is_not_saved_by_smaller_micro_batches() -> None:
    shortage = Shortage(RunConfig(num_workers=4), Stage.resampler, "step", elsewhere=True)
    assert [(change.name, change.value) for change in shortage.changes()] == [("num_workers", 2)]


def test_several_devices_are_refused_with_the_reason() -> None:
    for several in ({"devices": 2}, {"num_nodes": 2}, {"strategy": "ddp"}):
        with pytest.raises(BadInput, match="auto_batch is True: with ddp the others would wait"):
            RunConfig(**several, **AUTO).check()  # type: ignore[arg-type]
    assert "--auto-batch" not in Shortage(RunConfig(devices=2), Stage.resampler, "step").message("cuda:0")


# auto_batch -----------------------------------------------------------------


def test_parts_of_a_batch_are_the_batches_that_would_have_been_made_of_their_samples(split: Split, prompter: Prompter, config: RunConfig) -> None:
    pairs = Samples(split, by_row=True).pairs[3:14]
    collate = Collate(split, prompter)
    parts, made = in_parts(collate(pairs), 4), Share(collate, 4, 0, 1)(pairs).batches
    assert [len(part.image_index) for part in parts] == [4, 4, 3]
    for part, whole in zip(parts, made, strict=True):
        for name, value in vars(part).items():
            assert torch.equal(value, getattr(whole, name)) if isinstance(value, Tensor) else value == getattr(whole, name), name
    together = Share(collate, 6, 0, 1)(pairs)
    assert together.in_parts(6) is together
    assert together.in_parts(3).weights == Share(collate, 3, 0, 1)(pairs).weights


def test_parts_of_a_batch_with_features_have_those_of_their_panoramas(batch: Batch) -> None:
    features = torch.arange(len(batch.pixels)).float()
    with_features = Batch(torch.zeros(0), batch.image_index, batch.input_ids, batch.attention_mask, batch.labels, features)
    first, second = Step((with_features,), (1,)).in_parts(3).batches
    assert torch.equal(first.features[first.image_index], batch.image_index[:3].float())  # type: ignore[index]
    assert torch.equal(second.features[second.image_index], batch.image_index[3:].float())  # type: ignore[index]


def test_the_steps_are_those_of_accumulation_set_by_hand_also_where_random_numbers_matter(train: Train, room: Room) -> None:
    """Adapters drop some of what they read, and memory runs out in a backward pass."""
    run: dict[str, Any] = {"lora_r": 4, "lora_dropout": 0.5}
    by_hand = train("by hand", stage=Stage.finetune, run=run, accumulation=2)
    room.training = 4
    auto = train("auto", stage=Stage.finetune, run=run | AUTO)
    for name in ("train_loss", "grad_norm", "val_loss"):
        assert values(auto, name) == values(by_hand, name), name
    assert warnings(auto) == ["step 1: out of memory with micro-batches of 8; going on with accumulation 2 (micro-batches of 4)."]
    assert any(isinstance(event, Note) and event.text == "auto_batch: ended with accumulation 2 (micro-batches of 4)" for event in told(auto))
    assert rundir.read_note(auto / "checkpoints" / "last.ckpt").config["stages"]["finetune"]["accumulation"] == 2


def test_gradients_of_the_micro_batches_before_the_one_that_did_not_fit_do_not_count_twice(train: Train, room: Room) -> None:
    by_hand = train("by hand", accumulation=4)
    room.training, room.first = 2, 4  # the first that does not fit is the second micro-batch of step 2
    auto = train("auto", run=AUTO, accumulation=2)
    for name in ("train_loss", "grad_norm", "val_loss"):
        assert values(auto, name) == pytest.approx(values(by_hand, name), rel=2e-5), name
    assert [text[:7] for text in warnings(auto)] == ["step 2:"]


def test_it_is_halved_until_it_fits_and_one_sample_that_does_not_is_the_end(train: Train, room: Room, tmp_path: Path) -> None:
    room.training = 1
    train("fits", run=AUTO, max_steps=1)
    assert [text.split("; ")[1] for text in warnings(tmp_path / "fits")] == [
        f"going on with accumulation {count} (micro-batches of {8 // count})." for count in (2, 4, 8)
    ]
    room.training = 0
    with pytest.raises(OutOfMemory, match=r"in step 1 \(micro-batches of 1\)"):
        train("full", run=AUTO)
    assert "accumulation" not in (outcome(tmp_path / "full").suggestion or {})


def test_stage_vision_keeps_eight_panoramas_a_micro_batch_and_says_across_how_many_it_looks(train: Train, room: Room, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"stage": Stage.vision, "batch_size": 32, "max_steps": 1}
    room.training = 8
    auto = train("auto", run=AUTO, **settings)
    assert room.largest == 8
    assert warnings(auto)[-1].endswith("(micro-batches of 8); the overlap loss takes its statistics across 8 panoramas from here on.")
    room.training = 7
    with pytest.raises(OutOfMemory, match="--gradient-checkpointing"):
        train("full", run=AUTO, **settings)
    assert "accumulation" not in (outcome(tmp_path / "full").suggestion or {})


def test_a_training_that_is_resumed_goes_on_with_the_accumulation_it_had_come_to(train: Train, room: Room, config: RunConfig, tmp_path: Path) -> None:
    """In stage vision, whose numbers depend on it, so that another accumulation would be refused. Two epochs: the second is dealt in the new size."""

    class AfterOneStep(StopRequest):
        def __bool__(self) -> bool:
            return bool(values(tmp_path / "stopped", "train_loss"))

    settings: dict[str, Any] = {"batch_size": 16, "epochs": 2, "max_steps": None}
    by_hand = train("by hand", stage=Stage.vision, accumulation=2, **settings)
    room.training = 8
    stopped = tmp_path / "stopped"
    with pytest.raises(Stopped):
        train_stage(StageJob(changed(config, Stage.vision, AUTO, **settings), Stage.vision, stopped), AfterOneStep(stopped))
    last = stopped / "checkpoints" / "last.ckpt"
    with pytest.raises(BadInput, match="accumulation was 2 and is 1"):
        train("refused", stage=Stage.vision, resume=last, **settings)
    train("stopped", stage=Stage.vision, run=AUTO, resume=last, **settings)
    assert len(values(by_hand, "train_loss")) == 4
    for name in ("train_loss", "grad_norm", "val_loss"):
        assert values(stopped, name) == values(by_hand, name), name
    first, second = warnings(stopped)
    assert first.startswith("step 1: out of memory with micro-batches of 16; going on with accumulation 2 (micro-batches of 8); the overlap loss")
    assert second.startswith("going on with accumulation 2 (micro-batches of 8), to which auto_batch had come")


def test_validation_batches_are_halved_for_themselves_and_val_loss_stays(train: Train, room: Room) -> None:
    whole = train("whole", batch_size=16, max_steps=1)
    room.validating = 5
    halved = train("halved", run=AUTO, batch_size=16, max_steps=1)
    for name in ("train_loss", "val_loss", "val_effective_rank"):
        assert values(halved, name) == pytest.approx(values(whole, name), rel=1e-5), name
    assert [text.split(": ")[1] for text in warnings(halved)] == [
        "out of memory with batches of 16; going on with 8. val_loss stays.",
        "out of memory with batches of 8; going on with 4. val_loss stays.",
    ]


def test_validation_that_does_not_fit_is_named_and_in_stage_vision_never_halved(train: Train, room: Room, tmp_path: Path) -> None:
    room.validating = 5
    with pytest.raises(OutOfMemory, match="in the validation at step 1"):
        train("text", max_steps=1)
    assert outcome(tmp_path / "text").suggestion == {"auto_batch": True}
    with pytest.raises(OutOfMemory, match=r"in the validation at step 0.* --batch-size 8 \(in a new run; the overlap loss"):
        train("vision", stage=Stage.vision, run=AUTO, batch_size=16, max_steps=1)
    assert warnings(tmp_path / "vision") == []
