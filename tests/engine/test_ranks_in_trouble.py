"""Two ranks through losses that are no numbers, kills and stops: they decide alike, and go on as if nothing had happened."""

import json
import math
import shutil
import signal
from pathlib import Path

import pytest

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.events import Metric, Note, StageEvent
from panollava.stages import Stage
from tests.engine.two_ranks import Event, train

EPOCH, STEPS = 16, 18
"""Validations follow both, of two batches on each rank."""


def shared(config: RunConfig, directory: Path, stage: Stage = Stage.resampler, **settings: object) -> RunConfig:
    chosen = config.stages[stage].model_copy(update={"batch_size": 10, "epochs": 2, "max_steps": STEPS, **settings})
    stages = config.stages.model_copy(update={str(stage): chosen})
    return config.model_copy(update={"stage": (stage,), "stages": stages, "output_dir": str(directory), "log_dir": "", "example_predictions": 0})


@pytest.fixture(scope="module")
def forgetful(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A short training in which each rank's random numbers matter: the encoder drops attention."""
    directory = tmp_path_factory.mktemp("two")
    shutil.copytree(config.vision_model, directory / "vision")
    path = directory / "vision" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_dropout": 0.2}))
    return shared(config.model_copy(update={"vision_model": str(directory / "vision")}), directory / "undisturbed", save_every_steps=3)


def stage_dir(config: RunConfig) -> Path:
    return rundir.stage_dir(config.output_dir, config.name, config.stage[0])


def told(config: RunConfig) -> list[events.Event]:
    return [event for _, event in events.read(stage_dir(config) / events.EVENTS_FILE)]


def metrics(config: RunConfig, name: str) -> dict[int, float]:
    return {event.step: event.values[name] for event in told(config) if isinstance(event, Metric) and name in event.values}


def outcome(config: RunConfig) -> StageEvent:
    *_, last = (event for event in told(config) if isinstance(event, StageEvent))
    return last


def test_killed_and_stopped_on_any_rank_both_take_the_steps_of_two_that_were_left_alone(forgetful: RunConfig, tmp_path: Path) -> None:
    assert train(forgetful) == [0, 0]
    config = forgetful.model_copy(update={"output_dir": str(tmp_path / "two")})
    stop_file, checkpoints = stage_dir(config) / events.STOP_FILE, stage_dir(config) / "checkpoints"

    assert train(config, Event(1, "measure", "die", [5]), all_die=True) == [-signal.SIGKILL] * 2
    assert train(config, Event(1, "validation_step", "terminate", [1])) == [75, 0]
    assert (outcome(config).status, outcome(config).step) == ("stopped", EPOCH)
    shutil.copytree(checkpoints, tmp_path / "one" / stage_dir(config).name / "checkpoints")
    assert train(config, Event(1, "validation_step", "ask to stop", [1], stop_file)) == [75, 0]
    stop_file.unlink()
    assert (outcome(config).status, outcome(config).detail) == ("stopped", f"Nothing new since step {EPOCH}, from which it was resumed.")
    assert train(config) == [0, 0]

    for name in ("train_loss", "grad_norm", "val_loss"):
        assert metrics(config, name) == metrics(forgetful, name), name
    assert sorted(metrics(config, "train_loss")) == list(range(1, STEPS + 1))
    resumed = [event.step for event in told(config) if isinstance(event, StageEvent) and event.status == "resumed"]
    assert resumed == [3, EPOCH, EPOCH]

    alone = config.model_copy(update={"output_dir": str(tmp_path / "one")})
    assert train(alone, ranks=1) == [0]
    assert metrics(alone, "val_loss")[EPOCH] == pytest.approx(metrics(config, "val_loss")[EPOCH], rel=1e-6), "one process, the same weights"


def test_a_loss_that_is_no_number_on_one_rank_is_left_out_on_both_and_ten_in_a_row_end_both(config: RunConfig, tmp_path: Path) -> None:
    config = shared(config, tmp_path, batch_size=4, max_steps=30)
    nine, ten = range(2, 11), range(12, 22)
    assert train(config, Event(1, "measure", "not finite", [*nine, *ten])) == [1, 1]
    losses = metrics(config, "train_loss")
    assert [step for step, loss in losses.items() if math.isfinite(loss)] == [1, 11]
    assert (outcome(config).status, outcome(config).reason) == ("failed", "diverged")
    assert "10 steps in a row, up to step 21" in str(outcome(config).detail), "nine did not end it, so each counted once"


def test_when_the_first_rank_is_killed_the_other_ends(config: RunConfig, tmp_path: Path) -> None:
    assert train(shared(config, tmp_path), Event(0, "measure", "die", [3])) == [-signal.SIGKILL, 1]


def test_each_rank_encodes_its_part_of_the_panoramas_once_and_a_full_cache_changes_no_loss(config: RunConfig, tmp_path: Path) -> None:
    def encoded(name: str, **changes: object) -> tuple[dict[int, float], list[int], RunConfig]:
        cache = {"cache_dir": str(tmp_path / name / "cache"), **changes}
        asked = shared(config, tmp_path / name, Stage.finetune, max_steps=2).model_copy(update=cache)
        notes = [tmp_path / name / f"encoded-{rank}" for rank in (0, 1)]
        assert train(asked, *(Event(rank, "patches", "note", file=file) for rank, file in enumerate(notes))) == [0, 0]
        return metrics(asked, "train_loss"), [sum(map(int, file.read_text().split())) if file.exists() else 0 for file in notes], asked

    losses, panoramas, _ = encoded("roomy")
    assert panoramas == [24, 24], "of 40 and 8, each once; none during the two steps and the validation"
    without, _, full = encoded("full", cache_gb=30 * 25e3 / 1e9)
    assert without == pytest.approx(losses, rel=1e-6)
    assert any("is full: cache_gb" in event.text for event in told(full) if isinstance(event, Note))
