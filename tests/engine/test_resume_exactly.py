"""Killed with SIGKILL at any moment, a training that goes on from last.ckpt takes the same steps as one that was left alone."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import CheckpointSaved, Metric, Note, StageEvent
from panollava.model.panollava import Batch
from panollava.stages import Stage
from panollava.training.chain import train_chain
from panollava.training.module import StageModule
from panollava.training.stop import Stopped
from tests.engine.trainer_process import Death, train

STEPS = 12
"""One epoch of eight and a half one: two validations."""
MOMENTS = [
    Death("step", 3),
    Death("half a checkpoint"),
    Death("a checkpoint without its new name", file="step="),
    Death("a name without its note", file="step="),
    Death("validation", 2),
    Death("a name without its note", file="epoch="),
]


@pytest.fixture(scope="module")
def forgetful(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A short training in which random numbers matter: the encoder drops attention."""
    directory = tmp_path_factory.mktemp("exact")
    shutil.copytree(config.vision_model, directory / "vision")
    path = directory / "vision" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_dropout": 0.2}))
    settings = config.stages.resampler.model_copy(
        update={"max_steps": STEPS, "epochs": 2, "batch_size": 20, "accumulation": 2, "save_every_steps": 2}
    )
    return config.model_copy(
        update={
            "stage": (Stage.resampler,), "vision_model": str(directory / "vision"), "output_dir": str(directory / "alone"), "log_dir": "",
            "stages": config.stages.model_copy(update={"resampler": settings}),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(forgetful: RunConfig) -> dict[int, float]:
    """The losses of the training that nobody disturbs."""
    assert train(forgetful) == 0
    found = losses(forgetful)
    assert len(found) == STEPS
    return found


def stage_dir(config: RunConfig) -> Path:
    return rundir.stage_dir(config.output_dir, config.name, Stage.resampler)


def told(config: RunConfig) -> list[events.Event]:
    return [event for _, event in events.read(stage_dir(config) / events.EVENTS_FILE)]


def losses(config: RunConfig) -> dict[int, float]:
    return {event.step: event.values["train_loss"] for event in told(config) if isinstance(event, Metric) and "train_loss" in event.values}


def validations(config: RunConfig) -> dict[int, float]:
    return {event.step: event.values["val_loss"] for event in told(config) if isinstance(event, Metric) and "val_loss" in event.values}


def test_killed_at_every_bad_moment_it_takes_the_same_steps(forgetful: RunConfig, alone: dict[int, float], tmp_path: Path) -> None:
    config, killed = forgetful.model_copy(update={"output_dir": str(tmp_path)}), []
    for moment in MOMENTS:
        assert train(config, moment) == -signal.SIGKILL, moment
        killed.append(time.time())
    assert train(config) == 0
    assert losses(config) == alone
    stepped = [event.t for event in told(config) if isinstance(event, Metric)]
    print("stepped again after", ", ".join(f"{min(t for t in stepped if t > at) - at:.1f}" for at in killed), "s")
    resumed = [event.step for event in told(config) if isinstance(event, StageEvent) and event.status == "resumed"]
    assert resumed == sorted(resumed)
    assert resumed[-1] >= 8, "each attempt went on where the one before had saved"
    assert not list((stage_dir(config) / "checkpoints").glob("*.part"))


@pytest.mark.parametrize(("num_workers", "deaths"), [(0, 3), (1, 1)])
def test_killed_anywhere_it_takes_the_same_steps_also_with_loaders_beside_it(
    forgetful: RunConfig, alone: dict[int, float], tmp_path: Path, num_workers: int, deaths: int
) -> None:
    config = forgetful.model_copy(update={"output_dir": str(tmp_path), "num_workers": num_workers})
    dice = random.Random()
    moments = [Death(dice.choice(["step", "a name without its note"]), dice.randint(1, 5)) for _ in range(deaths)]
    for moment in moments:
        assert train(config, moment) == -signal.SIGKILL, moment
    assert train(config) == 0
    assert losses(config) == alone, moments


def test_stopped_while_it_validates_it_takes_the_same_steps(
    forgetful: RunConfig, alone: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = forgetful.model_copy(update={"output_dir": str(tmp_path)})
    honest, stop_file = StageModule.validation_step, stage_dir(config) / events.STOP_FILE

    def asked_to_stop(self: StageModule, batch: Batch, number: int) -> None:
        stop_file.touch()
        honest(self, batch, number)

    with monkeypatch.context() as patched, pytest.raises(Stopped, match="Saved at step 8"):
        patched.setattr(StageModule, "validation_step", asked_to_stop)
        train_chain(config, resume="auto", stage_dir=None)
    stop_file.unlink()
    assert train(config) == 0
    assert losses(config) == alone
    assert validations(config) == validations(forgetful)


def test_the_newest_regular_step_checkpoints_stay_and_the_others_make_room(forgetful: RunConfig, alone: dict[int, float]) -> None:
    names = {path.name for path in (stage_dir(forgetful) / "checkpoints").glob("step=*.ckpt")}
    assert names == {"step=000008.ckpt", "step=000010.ckpt", "step=000012.ckpt"}
    there = {event.path for event in told(forgetful) if isinstance(event, CheckpointSaved)}
    gone = {event.path for event in told(forgetful) if isinstance(event, events.CheckpointRemoved)}
    assert {path for path in there if (stage_dir(forgetful) / path).exists()} == there - gone


def test_a_corrupt_last_checkpoint_is_named_and_the_one_before_it_is_used(forgetful: RunConfig, alone: dict[int, float], tmp_path: Path) -> None:
    config = forgetful.model_copy(update={"output_dir": str(tmp_path)})
    assert train(config, Death("step", 15)) == -signal.SIGKILL  # 8 steps of two micro-batches, and 2 files: 6 is the last
    last = stage_dir(config) / "checkpoints" / "last.ckpt"
    assert rundir.verify(last).step == 6
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)  # and with it step=000006.ckpt, whose second name it is
    with pytest.raises(BadInput, match=r"last\.ckpt: damaged: .* Whole is .*step=000004\.ckpt"):
        train_chain(config, resume=str(last), stage_dir=None)
    assert train(config) == 0
    notes = [event.text for event in told(config) if isinstance(event, Note) and event.level == "warning"]
    assert any("last.ckpt: damaged" in text and "Continuing from step=000004.ckpt instead" in text for text in notes)
    assert losses(config) == alone


def test_the_dashboards_next_attempt_falls_back_where_the_checkpoint_it_was_given_is_damaged(
    forgetful: RunConfig, alone: dict[int, float], tmp_path: Path
) -> None:
    checkpoints = tmp_path / "attempt-1" / "checkpoints"
    shutil.copytree(stage_dir(forgetful) / "checkpoints", checkpoints)
    (checkpoints / "last.ckpt").write_bytes((checkpoints / "last.ckpt").read_bytes()[:-1] + b"?")
    for name in ("step=000010.ckpt", "step=000012.ckpt", "epoch=00*", "epoch=01*", "best.ckpt"):
        for path in checkpoints.glob(name):
            path.unlink()
    attempt = tmp_path / "attempt-2"
    train_chain(forgetful, resume=str(checkpoints / "last.ckpt"), stage_dir=attempt, fall_back=True)
    found = [event for _, event in events.read(attempt / events.EVENTS_FILE)]
    assert any(isinstance(event, Note) and "Continuing from step=000008.ckpt instead" in event.text for event in found)
    after = {event.step: event.values["train_loss"] for event in found if isinstance(event, Metric) and "train_loss" in event.values}
    assert after == {step: loss for step, loss in alone.items() if step > 8}


def test_a_full_disk_ends_the_training_and_leaves_the_checkpoint_before(forgetful: RunConfig, alone: dict[int, float], tmp_path: Path) -> None:
    config = forgetful.model_copy(update={"output_dir": str(tmp_path)})
    assert train(config, Death("step", 6)) == -signal.SIGKILL
    last = stage_dir(config) / "checkpoints" / "last.ckpt"
    before = rundir.verify(last)
    assert train(config, largest_file=last.stat().st_size - 1000) == 1
    outcome = told(config)[-1]
    assert isinstance(outcome, StageEvent)
    assert (outcome.status, outcome.reason) == ("failed", "CannotSave")
    assert outcome.detail is not None
    assert "step=000004.ckpt: could not be written" in outcome.detail
    assert "It needs " in outcome.detail
    assert rundir.verify(last) == before
    assert train(config) == 0
    assert losses(config) == alone
