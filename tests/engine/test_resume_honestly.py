"""A resumed stage takes the steps that it says it takes, on the data and the views that it has learned from, or is refused."""

from pathlib import Path
from typing import Any

import pytest

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import Metric, Note
from panollava.model.panollava import Batch
from panollava.stages import Stage
from panollava.training.chain import train_chain
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.stop import StopRequest


def told(directory: Path) -> list[events.Event]:
    return [event for _, event in events.read(directory / events.EVENTS_FILE)]


def steps(directory: Path) -> list[int]:
    return [event.step for event in told(directory) if isinstance(event, Metric) and "train_loss" in event.values]


def losses(directory: Path) -> dict[int, float]:
    return {event.step: event.values["train_loss"] for event in told(directory) if isinstance(event, Metric) and "train_loss" in event.values}


def of(config: RunConfig, **settings: Any) -> RunConfig:
    changed = config.stages.finetune.model_copy(update=settings)
    return config.model_copy(update={"stages": config.stages.model_copy(update={"finetune": changed})})


def train(config: RunConfig, directory: Path, **start: Any) -> Path:
    return train_stage(StageJob(config, Stage.finetune, directory, **start), StopRequest(directory))


@pytest.fixture(scope="module")
def short(config: RunConfig) -> RunConfig:
    """Three steps of an epoch of twenty, without warm-up or decay: more steps change nothing about those before."""
    return of(config, epochs=1, batch_size=8, max_steps=3)


@pytest.fixture(scope="module")
def cut(short: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that max_steps has ended within its first epoch."""
    directory = tmp_path_factory.mktemp("cut")
    train(short, directory)
    return directory


def last(directory: Path) -> Path:
    return directory / rundir.CHECKPOINTS / rundir.LAST


def test_more_steps_go_on_within_the_epoch_that_max_steps_cut(short: RunConfig, cut: Path, tmp_path: Path) -> None:
    train(of(short, max_steps=6), tmp_path, resume=last(cut))
    assert steps(tmp_path) == [4, 5, 6]
    assert rundir.read_note(last(tmp_path)).epoch == pytest.approx(6 / 20)


def test_a_stage_that_is_finished_already_takes_no_step_and_is_not_validated_again(short: RunConfig, cut: Path, tmp_path: Path) -> None:
    train(short, tmp_path, resume=last(cut))
    assert not any(isinstance(event, Metric) for event in told(tmp_path))


def test_a_training_that_went_back_is_continued_on_its_new_way(short: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = of(short, max_steps=4, save_every_steps=1).model_copy(update={"stage": (Stage.finetune,), "output_dir": str(tmp_path), "log_dir": ""})
    directory = rundir.stage_dir(tmp_path, here.name, Stage.finetune)
    honest = StageModule.measure

    def broken_at(step: int) -> None:
        def measure(self: StageModule, batch: Batch) -> Any:
            if self.step == step:
                raise RuntimeError("a bug")
            return honest(self, batch)

        monkeypatch.setattr(StageModule, "measure", measure)

    broken_at(3)
    with pytest.raises(RuntimeError):
        train_chain(here, resume=None, stage_dir=None)
    broken_at(2)
    with pytest.raises(RuntimeError):
        train_chain(here, resume=str(directory / rundir.CHECKPOINTS / "step=000001.ckpt"), stage_dir=None)
    monkeypatch.undo()
    assert rundir.read_note(last(directory)).step == 2
    train_chain(here, resume="auto", stage_dir=None)
    assert steps(directory) == [1, 2, 3, 2, 3, 4], "after step 2 of its new way, not after step 3 of the old one"


def test_fewer_steps_than_were_taken_are_refused(short: RunConfig, cut: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has taken 3 steps, and with these settings the stage has 2"):
        train(of(short, max_steps=2), tmp_path, resume=last(cut))


@pytest.mark.parametrize(("field", "value"), [("fov", 100.0), ("crop_strategy", "sliding_window"), ("fast_decode", True)])
def test_other_views_of_the_same_number_are_refused(short: RunConfig, cut: Path, tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{field} was .* and is {value}"):
        train(short.model_copy(update={field: value}), tmp_path, resume=last(cut))


def test_weights_that_have_learned_from_other_views_are_announced(short: RunConfig, cut: Path, tmp_path: Path) -> None:
    train(short.model_copy(update={"fov": 100.0}), tmp_path, init_from=last(cut))
    warnings = [event.text for event in told(tmp_path) if isinstance(event, Note) and event.level == "warning"]
    assert any("has learned from other views: fov was 90.0 and is 100.0." in text for text in warnings)


def test_other_data_is_refused_naming_the_split(short: RunConfig, cut: Path, demo_data: Path, tmp_path: Path) -> None:
    fewer = demo_data / "fewer.csv"
    fewer.write_text("".join((demo_data / "train.csv").read_text().splitlines(keepends=True)[:-8]))
    with pytest.raises(BadInput, match="tables or images of train are not those that it has learned from"):
        train(short.model_copy(update={"csv_train": (str(fewer),)}), tmp_path, resume=last(cut))


def test_a_finished_stage_says_which_settings_of_its_are_other_than_asked_for(
    short: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = short.model_copy(update={"stage": (Stage.finetune,), "output_dir": str(tmp_path), "log_dir": ""})
    train_chain(here, resume=None, stage_dir=None)
    caplog.set_level("INFO", "panollava")
    train_chain(of(here, max_steps=6), resume="auto", stage_dir=None)
    assert "finished already" in caplog.text
    assert "max_steps was 3 and is 6" in caplog.text
    assert "--resume" in caplog.text
