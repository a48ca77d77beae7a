"""One stage from data to checkpoints: what it leaves behind, how it stops, how it goes on, and what it refuses before step 1."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import CheckpointRemoved, CheckpointSaved, Event, Metric, Note, StageEvent
from panollava.model.panollava import Batch
from panollava.model.parts import build
from panollava.stages import Stage, learned
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import Diverged, StageModule
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import load_weights, read_checkpoint


def told(directory: Path) -> list[Event]:
    return [event for _, event in events.read(directory / events.EVENTS_FILE)]


def losses(directory: Path) -> dict[int, float]:
    """The training loss of each step; a step that was told twice keeps its last value."""
    return {event.step: event.values["train_loss"] for event in told(directory) if isinstance(event, Metric) and "train_loss" in event.values}


def train(config: RunConfig, stage: Stage, directory: Path, **start: Any) -> Path:
    return train_stage(StageJob(config, stage, directory, **start), StopRequest(directory))


@pytest.fixture(scope="module")
def vision_run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "vlm_vision"
    train(config, Stage.vision, directory)
    return directory


@pytest.fixture(scope="module")
def resampler_run(config: RunConfig, vision_run: Path) -> Path:
    directory = vision_run.parent / "vlm_resampler"
    train(config, Stage.resampler, directory, init_from=vision_run / "checkpoints" / "best.ckpt")
    return directory


def test_a_stage_leaves_the_files_the_readme_names(resampler_run: Path) -> None:
    names = {path.name for path in (resampler_run / "checkpoints").glob("*.ckpt")}
    epoch = next(name for name in names if name.startswith("epoch=00-val_loss="))
    assert names == {epoch, "best.ckpt", "last.ckpt"}
    assert (resampler_run / "model_final.safetensors").exists()
    assert json.loads((resampler_run / "config.json").read_text())["name"] == "vlm"
    assert all(rundir.verify(resampler_run / "checkpoints" / name).stage is Stage.resampler for name in names)


def test_its_last_event_is_its_outcome_and_names_the_best_checkpoint(resampler_run: Path) -> None:
    last = told(resampler_run)[-1]
    assert isinstance(last, StageEvent)
    assert last.status == "succeeded"
    assert last.best is not None
    assert rundir.sha256(resampler_run / last.best) == rundir.read_note(resampler_run / "checkpoints" / "best.ckpt").sha256


def test_every_checkpoint_it_tells_of_is_whole_on_disk(resampler_run: Path) -> None:
    saved = [event for event in told(resampler_run) if isinstance(event, CheckpointSaved)]
    assert {event.kind for event in saved} == {"epoch", "last", "best", "final"}
    for event in saved:
        assert rundir.sha256(resampler_run / event.path) == event.sha256


def test_a_checkpoint_holds_the_parts_that_were_trained_so_far_and_no_other(vision_run: Path, resampler_run: Path) -> None:
    for run, stage in ((vision_run, Stage.vision), (resampler_run, Stage.resampler)):
        state = read_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"]
        parts = {name.removeprefix("model.").partition(".")[0] for name in state}
        assert parts == learned(stage) - ({"expander"} if stage is Stage.resampler else set())


def test_the_final_file_alone_gives_identical_answers(config: RunConfig, resampler_run: Path, batch: Batch) -> None:
    models = [build(config, language=True).model.eval() for _ in range(2)]
    load_weights(models[0], resampler_run / "model_final.safetensors", Stage.resampler)
    load_weights(models[1], resampler_run / "checkpoints" / "last.ckpt", Stage.resampler)
    with torch.no_grad():
        assert float(models[0](batch).total) == float(models[1](batch).total)


def test_a_stage_starts_from_a_safetensors_file_too(config: RunConfig, vision_run: Path, resampler_run: Path, tmp_path: Path) -> None:
    train(config, Stage.resampler, tmp_path, init_from=vision_run / "model_final.safetensors")
    assert losses(tmp_path) == losses(resampler_run)


def test_a_stopped_stage_saves_and_resumes_to_the_same_losses(config: RunConfig, resampler_run: Path, vision_run: Path, tmp_path: Path) -> None:
    class AfterTwoSteps(StopRequest):
        def __bool__(self) -> bool:
            return len(losses(tmp_path)) >= 2 if (tmp_path / events.EVENTS_FILE).exists() else False

    with pytest.raises(Stopped):
        train_stage(StageJob(config, Stage.resampler, tmp_path, vision_run / "checkpoints" / "best.ckpt"), AfterTwoSteps(tmp_path))
    assert told(tmp_path)[-1].status == "stopped"  # type: ignore[union-attr]
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert rundir.verify(last).step == 2
    train(config, Stage.resampler, tmp_path, resume=last)
    assert losses(tmp_path) == losses(resampler_run)


def test_a_stage_stopped_between_its_last_step_and_its_validation_is_validated_when_resumed(
    config: RunConfig, resampler_run: Path, vision_run: Path, tmp_path: Path
) -> None:
    class AtTheLastStep(StopRequest):
        def __bool__(self) -> bool:
            return len(losses(tmp_path)) >= 3 if (tmp_path / events.EVENTS_FILE).exists() else False

    with pytest.raises(Stopped):
        train_stage(StageJob(config, Stage.resampler, tmp_path, vision_run / "checkpoints" / "best.ckpt"), AtTheLastStep(tmp_path))
    best = train(config, Stage.resampler, tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert best.name == next((resampler_run / "checkpoints").glob("epoch=*.ckpt")).name
    assert "optimizer_states" in read_checkpoint(best)


def test_a_best_checkpoint_of_an_earlier_attempt_stays_the_best_of_the_later_one(config: RunConfig, vision_run: Path, tmp_path: Path) -> None:
    """A worker resumes in a directory of its own: the best epoch may lie in the one before."""
    first, second = tmp_path / "attempt-1", tmp_path / "attempt-2"
    three = config.stages.vision.model_copy(update={"max_steps": None, "epochs": 3, "batch_size": 20, "lr": 1e-3})
    config = config.model_copy(update={"stages": config.stages.model_copy(update={"vision": three})})

    class InTheThirdEpoch(StopRequest):
        def __bool__(self) -> bool:
            return len(losses(first)) >= 5 if (first / events.EVENTS_FILE).exists() else False

    with pytest.raises(Stopped, match="Saved at step 5"):
        train_stage(StageJob(config, Stage.vision, first), InTheThirdEpoch(first))
    # As if the third epoch brought nothing better: the earlier best has a loss that cannot be beaten.
    path = first / "checkpoints" / "last.ckpt"
    content = read_checkpoint(path)
    content["panollava"]["position"]["best_loss"] = -1.0
    torch.save(content, path)
    note = rundir.read_note(path)
    rundir.write_whole(rundir.note_path(path), note.model_copy(update={"size": path.stat().st_size, "sha256": rundir.sha256(path)}).model_dump_json())
    best = train(config, Stage.vision, second, resume=path)
    assert best.parent == second / "checkpoints"
    assert rundir.verify(best).sha256 == rundir.read_note(first / "checkpoints" / "best.ckpt").sha256


def test_a_request_to_save_now_is_met_at_the_next_step(config: RunConfig, vision_run: Path, tmp_path: Path) -> None:
    (tmp_path / events.SAVE_FILE).touch()
    train(config, Stage.resampler, tmp_path, init_from=vision_run / "checkpoints" / "best.ckpt")
    assert rundir.verify(tmp_path / "checkpoints" / "step=000001.ckpt").step == 1
    assert not (tmp_path / events.SAVE_FILE).exists()


def test_a_step_checkpoint_that_somebody_wants_does_not_make_room_for_newer_ones(config: RunConfig, vision_run: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "step=000001.ckpt.keep").touch()
    often = config.stages.resampler.model_copy(update={"max_steps": 4, "save_every_steps": 1, "keep_step_checkpoints": 1})
    stages = config.stages.model_copy(update={"resampler": often})
    train(config.model_copy(update={"stages": stages}), Stage.resampler, tmp_path, init_from=vision_run / "checkpoints" / "best.ckpt")
    assert sorted(path.name for path in checkpoints.glob("step=*.ckpt")) == ["step=000001.ckpt", "step=000004.ckpt"]
    assert rundir.verify(checkpoints / "step=000001.ckpt").step == 1
    removed = [event.path for event in told(tmp_path) if isinstance(event, CheckpointRemoved)]
    assert removed == ["checkpoints/step=000002.ckpt", "checkpoints/step=000003.ckpt"]


def test_a_damaged_checkpoint_is_refused_before_anything_is_trained(config: RunConfig, resampler_run: Path, tmp_path: Path) -> None:
    for name in ("last.ckpt", "last.ckpt.json"):
        shutil.copy(resampler_run / "checkpoints" / name, tmp_path / name)
    damaged = tmp_path / "last.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(BadInput, match="damaged"):
        train(config, Stage.resampler, tmp_path / "run", resume=damaged)
    assert not losses(tmp_path / "run")


def test_a_pickle_in_the_place_of_a_checkpoint_is_not_executed(resampler_run: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "exploded").touch, ())

    note = rundir.read_note(resampler_run / "checkpoints" / "last.ckpt")
    bomb = tmp_path / "bomb.ckpt"
    torch.save({"state_dict": Bomb()}, bomb)
    rundir.write_whole(rundir.note_path(bomb), note.model_copy(update={"size": bomb.stat().st_size, "sha256": rundir.sha256(bomb)}).model_dump_json())
    with pytest.raises(BadInput, match="not a checkpoint that can be read safely"):
        read_checkpoint(bomb)
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_of_another_architecture_names_the_field(config: RunConfig, resampler_run: Path, tmp_path: Path) -> None:
    wider = config.model_copy(update={"resampler_width": 96})
    with pytest.raises(BadInput, match="resampler_width is 128 there and 96 here"):
        train(wider, Stage.finetune, tmp_path, init_from=resampler_run / "checkpoints" / "best.ckpt")


def test_a_vision_checkpoint_may_start_any_bridge(config: RunConfig, vision_run: Path, tmp_path: Path) -> None:
    wider = config.model_copy(update={"resampler_width": 96})
    assert train(wider, Stage.resampler, tmp_path, init_from=vision_run / "checkpoints" / "best.ckpt").exists()


def test_a_truncated_image_is_named_and_fails_the_stage_before_step_1(config: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    image = next((data / "images").glob("train_*.jpg"))
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(BadInput, match=rf"train\.csv:\d+:url: images/{image.name}"):
        train(config.model_copy(update={"data_dir": str(data)}), Stage.vision, tmp_path / "run")
    last = told(tmp_path / "run")[-1]
    assert isinstance(last, StageEvent)
    assert (last.status, last.reason) == ("failed", "bad_input")
    assert not losses(tmp_path / "run")


def test_an_exception_in_a_step_fails_the_stage_and_is_not_swallowed(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: StageModule, batch: Batch) -> None:
        raise RuntimeError("the step is broken")

    monkeypatch.setattr(StageModule, "measure", broken)
    with pytest.raises(RuntimeError, match="the step is broken"):
        train(config, Stage.vision, tmp_path)
    last = told(tmp_path)[-1]
    assert isinstance(last, StageEvent)
    assert (last.status, last.reason, last.detail) == ("failed", "RuntimeError", "the step is broken")


def test_a_loss_that_stays_infinite_ends_the_run(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = StageModule.measure

    def infinite(self: StageModule, batch: Batch) -> Any:
        loss, weight, terms = honest(self, batch)
        return loss * float("nan"), weight, terms

    monkeypatch.setattr(StageModule, "measure", infinite)
    longer = config.stages.resampler.model_copy(update={"max_steps": 15, "batch_size": 4})
    stages = config.stages.model_copy(update={"resampler": longer})
    with pytest.raises(Diverged, match="not finite in 10 steps in a row"):
        train(config.model_copy(update={"stages": stages}), Stage.resampler, tmp_path)
    assert len(losses(tmp_path)) == 9, "NaN steps are recorded as NaN, not left out"
    last = told(tmp_path)[-1]
    assert isinstance(last, StageEvent) and last.reason == "diverged"


def test_too_few_panoramas_for_statistics_are_refused(config: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    few = demo_data / "three.csv"
    lines = (demo_data / "valid.csv").read_text().splitlines()
    images = list(dict.fromkeys(line.split(",")[0] for line in lines[1:]))[:3]
    few.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[0] in images)]) + "\n")
    with pytest.raises(BadInput, match="3 different panoramas"):
        train(config.model_copy(update={"csv_val": (str(few),)}), Stage.vision, tmp_path)


def test_a_resumed_stage_refuses_settings_its_checkpoint_does_not_have(config: RunConfig, resampler_run: Path, tmp_path: Path) -> None:
    slower = config.stages.resampler.model_copy(update={"lr": 1e-5})
    other = config.model_copy(update={"stages": config.stages.model_copy(update={"resampler": slower})})
    with pytest.raises(BadInput, match=r"lr was 0\.002 and is 1e-05"):
        train(other, Stage.resampler, tmp_path, resume=resampler_run / "checkpoints" / "last.ckpt")


def test_an_infinite_gradient_leaves_the_weights_alone(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning = StageModule.on_train_start

    def poison(self: StageModule) -> None:
        learning(self)
        self.model.projection.bias.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))

    monkeypatch.setattr(StageModule, "on_train_start", poison)
    with pytest.raises(Diverged, match="in none of 3 steps"):
        train(config, Stage.finetune, tmp_path)
    untrained = build(config).model.state_dict()
    after = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert all(torch.equal(tensor, untrained[name.removeprefix("model.")]) for name, tensor in after["state_dict"].items())
    assert after["panollava"]["not_finite"] == 3
    assert [event.values["left_out"] for event in told(tmp_path) if isinstance(event, Metric) and "left_out" in event.values] == [1, 2, 3]
    notes = [event.text for event in told(tmp_path) if isinstance(event, Note) and event.level == "warning"]
    assert "3 steps were left out, because their loss or gradient was not finite; 3 of 3 so far." in notes


def test_stage_vision_trains_on_a_table_without_annotations(config: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    table = demo_data / "unlabelled.csv"
    lines = (demo_data / "train.csv").read_text().splitlines()
    table.write_text("url,query\n" + "".join(",".join(line.split(",")[:2]) + "\n" for line in lines[1:]))
    assert train(config.model_copy(update={"csv_train": (str(table),), "csv_val": (str(table),)}), Stage.vision, tmp_path).exists()


def test_a_torn_checkpoint_is_passed_over_for_the_one_before_it(resampler_run: Path, tmp_path: Path) -> None:
    shutil.copytree(resampler_run / "checkpoints", tmp_path / "checkpoints")
    whole = rundir.last_good(tmp_path / "checkpoints")
    assert whole is not None
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        if path.name != "best.ckpt":
            path.write_bytes(path.read_bytes()[:-1])
    assert rundir.last_good(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "best.ckpt"
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    assert rundir.last_good(tmp_path / "checkpoints") is None


def test_a_pretrained_model_that_lacks_tensors_is_refused(config: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(config.vision_model, tmp_path / "vision")
    weights = load_file(tmp_path / "vision" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.1." not in name}
    save_file(kept, tmp_path / "vision" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"vision_model: .* lacks 16 of its tensors"):
        build(config.model_copy(update={"vision_model": str(tmp_path / "vision")}), language=False)
