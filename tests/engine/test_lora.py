"""LoRA in stage finetune: only adapters and bridge learn, a checkpoint needs no other argument, and the final file is the same model merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from panollava import events, rundir
from panollava.config import EvaluateConfig, RunConfig, merge, parse
from panollava.errors import BadInput
from panollava.evaluation.answer import load
from panollava.evaluation.evaluate import evaluate
from panollava.model.lora import merge_adapters
from panollava.model.panollava import Batch
from panollava.model.parts import build
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import load_weights, read_checkpoint

LINEAR = 7
LAYERS = 3


@pytest.fixture(scope="module")
def lora(config: RunConfig) -> RunConfig:
    return parse(merge(config.model_dump(), {"lora_r": 4, "stage": "finetune", "stages": {"finetune": {"lr": 0.01}}}))


def train(config: RunConfig, directory: Path, **start: Any) -> Path:
    return train_stage(StageJob(config, Stage.finetune, directory, **start), StopRequest(directory))


@pytest.fixture(scope="module")
def run(lora: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "vlm_finetune"
    train(lora, directory)
    return directory


def losses(directory: Path) -> dict[int, float]:
    told = (event for _, event in events.read(directory / events.EVENTS_FILE))
    return {event.step: event.values["train_loss"] for event in told if isinstance(event, events.Metric) and "train_loss" in event.values}


def test_adapters_change_nothing_before_they_have_learned(config: RunConfig, lora: RunConfig, batch: Batch) -> None:
    with torch.no_grad():
        plain, adapted = (float(build(own, adapters=True).model.eval()(batch).total) for own in (config, lora))
    assert plain == pytest.approx(adapted, rel=1e-6)


def test_only_adapters_and_the_bridge_learn_and_every_linear_layer_has_one(lora: RunConfig, batch: Batch) -> None:
    module = StageModule(build(lora, adapters=True), lora, Stage.finetune, steps=2)
    module.train()
    optimizer = module.configure_optimizers()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for _ in range(2):  # an A learns once its B is no longer zero
        optimizer.zero_grad()
        module.measure(batch)[0].backward()
        optimizer.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    adapters = {name for name in changed if "lora_" in name}
    assert len(adapters) == 2 * LINEAR * LAYERS
    assert {name.split(".")[1] for name in changed - adapters} == {"resampler", "projection"}


def test_a_checkpoint_holds_the_adapters_and_not_the_language_model(run: Path) -> None:
    names = [name for name in read_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"] if ".language." in name]
    assert len(names) == 2 * LINEAR * LAYERS
    assert all("lora_" in name for name in names)


def test_the_merged_file_and_the_checkpoint_alone_give_the_same_loss(run: Path, batch: Batch, lora: RunConfig) -> None:
    adapted, merged = (load(run / name) for name in ("checkpoints/best.ckpt", "model_final.safetensors"))
    with torch.no_grad():
        losses = [float(each.model(batch).total) for each in (adapted, merged)]
        untrained = float(build(lora).model.eval()(batch).total)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(untrained, rel=1e-3)
    with safe_open(run / "model_final.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if "lora" in name or "base_layer" in name]  # noqa: SIM118


def test_evaluating_a_checkpoint_with_adapters_takes_no_other_argument(run: Path, demo_data: Path, tmp_path: Path) -> None:
    settings = EvaluateConfig(
        checkpoint=str(run / "checkpoints" / "best.ckpt"), csv=str(demo_data / "test.csv"), limit=2, max_new_tokens=4, output_dir=str(tmp_path)
    )  # fmt: skip
    assert json.loads((evaluate(settings) / "metrics.json").read_text())["checkpoint"]["stage"] == "finetune"


def test_a_stopped_finetune_with_adapters_resumes_to_the_same_losses(lora: RunConfig, run: Path, tmp_path: Path) -> None:
    class AfterTwoSteps(StopRequest):
        def __bool__(self) -> bool:
            return len(losses(tmp_path)) >= 2 if (tmp_path / events.EVENTS_FILE).exists() else False

    with pytest.raises(Stopped):
        train_stage(StageJob(lora, Stage.finetune, tmp_path), AfterTwoSteps(tmp_path))
    train(lora, tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert losses(tmp_path) == losses(run)


def test_another_finetune_starts_from_the_adapters_of_one(lora: RunConfig, run: Path) -> None:
    model = build(lora, adapters=True).model
    load_weights(model, run / "checkpoints" / "best.ckpt", Stage.finetune)
    state = read_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(model.state_dict()[name.removeprefix("model.")], tensor) for name, tensor in state.items())


def test_a_finetune_without_adapters_may_be_given_some(config: RunConfig, lora: RunConfig, tmp_path: Path) -> None:
    best = train(config, tmp_path / "plain")
    final = tmp_path / "plain" / "model_final.safetensors"
    for start in (best, final):
        load_weights(build(lora, adapters=True).model, start, Stage.finetune)
    train(lora, tmp_path / "adapted", init_from=final)
    with pytest.raises(BadInput, match=r"cannot be resumed with other settings: .*lora_r was 0 and is 4"):
        train(lora, tmp_path / "plain", resume=tmp_path / "plain" / "checkpoints" / "last.ckpt")


def test_an_adapter_tensor_that_is_missing_or_too_many_is_an_error(
    lora: RunConfig, run: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream called 311 missing keys normal."""
    from panollava.training import weights

    path = run / "checkpoints" / "best.ckpt"
    whole = weights.read_weights(path)
    adapters = {name for name in whole if "lora_" in name}
    for lost in ({min(adapters)}, adapters):
        monkeypatch.setattr(weights, "read_weights", lambda _path, lost=lost: {name: tensor for name, tensor in whole.items() if name not in lost})
        with pytest.raises(BadInput, match=rf" {len(lost)} tensors differ: .* is missing there"):
            load_weights(build(lora, adapters=True).model, path, Stage.finetune)
    monkeypatch.undo()
    with pytest.raises(BadInput, match=rf"{2 * LINEAR * LAYERS} tensors differ: .* is unknown here"):
        load_weights(build(config).model, path, Stage.finetune)


@pytest.mark.parametrize("values", [{"lora_r": 8}, {"lora_alpha": 3}, {"lora_targets": ("q_proj",)}, {"lora_r": 0}])
def test_other_adapters_than_the_checkpoints_are_refused_by_their_setting(lora: RunConfig, run: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    other = lora.model_copy(update=values)
    with pytest.raises(BadInput, match=f"{next(iter(values))} is .* there and .* here"):
        train(other, tmp_path, init_from=run / "checkpoints" / "best.ckpt")


def test_a_finetune_is_not_resumed_with_another_dropout(lora: RunConfig, run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"lora_dropout was 0\.0 and is 0\.5"):
        train(lora.model_copy(update={"lora_dropout": 0.5}), tmp_path, resume=run / "checkpoints" / "last.ckpt")


def test_no_training_starts_from_merged_adapters(lora: RunConfig, config: RunConfig, run: Path, tmp_path: Path) -> None:
    """Its checkpoints would name the pretrained language model and not the one it had."""
    for own in (lora, config):
        with pytest.raises(BadInput, match=r"merged into its language model; start from checkpoints/best.ckpt"):
            train(own, tmp_path, init_from=run / "model_final.safetensors")


def test_targets_are_the_layers_named_and_a_name_of_none_is_refused(lora: RunConfig) -> None:
    some = parse(merge(lora.model_dump(), {"lora_targets": "q_proj, v_proj"}))
    assert some.lora_targets == ("q_proj", "v_proj")
    names = [name for name, _ in build(some, adapters=True).model.named_parameters() if "lora_" in name]
    assert len(names) == 2 * 2 * LAYERS
    with pytest.raises(BadInput, match=r"lora_targets: no linear layer of .* is called query; there are down_proj"):
        build(lora.model_copy(update={"lora_targets": ("q_proj", "query")}), adapters=True)


@pytest.mark.parametrize("values", [{"lora_alpha": 4}, {"lora_dropout": 0.1}, {"lora_targets": "q_proj"}])
def test_settings_of_adapters_without_adapters_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as refused:
        parse(values)
    assert [field for field, _ in refused.value.fields] == list(values)


def test_dropout_is_on_in_training_only(lora: RunConfig) -> None:
    dropping = build(lora.model_copy(update={"lora_dropout": 0.5}), adapters=True)
    module = StageModule(dropping, lora, Stage.finetune, steps=2)
    drops = [each for each in module.modules() if isinstance(each, torch.nn.Dropout) and each.p == 0.5]
    assert len(drops) == LINEAR * LAYERS
    module.train()
    assert all(drop.training for drop in drops)
    module.eval()
    assert not any(drop.training for drop in drops)


def test_merging_a_model_without_adapters_leaves_it_alone(config: RunConfig) -> None:
    model = build(config).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merge_adapters(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_note_of_the_merged_file_still_says_how_it_was_trained(run: Path) -> None:
    note = rundir.read_note(run / "model_final.safetensors")
    assert note.config["lora_r"] == 4
    assert not [name for name in note.tensors if "lora_" in name]
