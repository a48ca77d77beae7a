"""TensorBoard, a CSV file, and what becomes of a logger that fails: it is named once, and the training goes on."""

import csv
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

from panollava import events
from panollava.config import RunConfig
from panollava.events import EventWriter, Metric, Note, Sample
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.loggers import Logger, Loggers, Place, opened
from panollava.training.stop import Stopped, StopRequest

BOTH = RunConfig(tensorboard=True, metrics_csv=True)
SAMPLE = Sample(step=2, url="images/a.jpg", query="What is *here*?", references=["A <b>red</b> ball.", "A ball."], prediction="A cat.\nOr two.")


@pytest.fixture
def writer(tmp_path: Path) -> EventWriter:
    return EventWriter(tmp_path / events.EVENTS_FILE)


def notes(directory: Path) -> list[str]:
    return [event.text for _, event in events.read(directory / events.EVENTS_FILE) if isinstance(event, Note) and event.level == "warning"]


def log(place: Place, steps: range, config: RunConfig = BOTH) -> None:
    """What a training of these steps says to the loggers."""
    writer = EventWriter(place.directory / events.EVENTS_FILE)
    with opened(config, Stage.resampler, place, writer) as loggers:
        for step in steps:
            loggers.scalars(step, {"train_loss": 10.0 - step, "lr": 1e-5})
    writer.close()


def table(directory: Path) -> list[tuple[int, str, float]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]


def curve(directory: Path, name: str) -> list[tuple[int, float]]:
    """As TensorBoard itself reads it."""
    read = EventAccumulator(str(directory / "tensorboard"), size_guidance={TENSORS: 0}).Reload()
    return [(each.step, round(each.value, 5)) for each in read.Scalars(name)]


def test_a_column_that_comes_later_changes_no_line_before_it(tmp_path: Path, writer: EventWriter) -> None:
    with opened(BOTH, Stage.resampler, Place(tmp_path), writer) as loggers:
        loggers.scalars(1, {"train_loss": 2.5})
        loggers.scalars(2, {"train_loss": float("nan"), "grad_norm": float("inf")})
        before = (tmp_path / "metrics.csv").read_text()
        loggers.scalars(2, {"val_loss": 0.1, 'a,"b"': 1.0})
    assert (tmp_path / "metrics.csv").read_text().startswith(before)
    assert [row for row in table(tmp_path) if row[2] == row[2]] == [
        (1, "train_loss", 2.5), (2, "grad_norm", float("inf")), (2, "val_loss", 0.1), (2, 'a,"b"', 1.0),
    ]  # fmt: skip


def test_tensorboard_reads_the_scalars_and_the_example_answers(tmp_path: Path, writer: EventWriter) -> None:
    with opened(BOTH, Stage.resampler, Place(tmp_path), writer) as loggers:
        loggers.scalars(1, {"train_loss": 2.5})
        loggers.scalars(2, {"train_loss": 2.25})
        loggers.examples([SAMPLE])
    assert curve(tmp_path, "train_loss") == [(1, 2.5), (2, 2.25)]
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (text,) = read.Tensors("examples/1/text_summary")
    assert text.step == 2
    said = text.tensor_proto.string_val[0].decode()
    assert "    What is *here*?" in said
    assert "    A cat.\n    Or two." in said, "every line of a text is code, in which nothing is markup"


@pytest.mark.parametrize("second", ["the same directory", "a directory of its own"])
def test_a_resumed_training_goes_on_without_repeating_a_step(tmp_path: Path, second: str) -> None:
    """A worker's next attempt has a directory of its own, a terminal's the same; both go on in the middle of what was written."""
    first = tmp_path / "attempt-1"
    log(Place(first), range(1, 7))
    later = first if second == "the same directory" else tmp_path / "attempt-2"
    log(Place(later, before=first, step=4), range(5, 9))
    assert [row[:2] for row in table(later)] == [(step, name) for step in range(1, 9) for name in ("train_loss", "lr")]
    assert curve(later, "train_loss") == [(step, 10.0 - step) for step in range(1, 9)]


def test_half_a_line_that_a_kill_left_is_not_taken_along(tmp_path: Path) -> None:
    log(Place(tmp_path), range(1, 4))
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,samp")
    log(Place(tmp_path, before=tmp_path, step=3), range(4, 5))
    assert [row[0] for row in table(tmp_path)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_half_a_record_that_a_kill_left_costs_no_step_that_counts(tmp_path: Path) -> None:
    log(Place(tmp_path), range(1, 7))
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    log(Place(tmp_path, before=tmp_path, step=4), range(5, 9))
    assert curve(tmp_path, "lr") == [(step, 1e-5) for step in range(1, 9)]


def test_a_training_resumed_from_one_that_had_no_loggers_begins_its_own_files(tmp_path: Path) -> None:
    log(Place(tmp_path / "new", before=tmp_path / "nothing", step=4), range(5, 6))
    assert [row[0] for row in table(tmp_path / "new")] == [5, 5]
    assert curve(tmp_path / "new", "lr") == [(5, 1e-5)]


def test_a_missing_package_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    log(Place(tmp_path), range(1, 2))
    assert notes(tmp_path) == ["tensorboard is set, but tensorboard is not installed: pip install 'panollava[tensorboard]'."]
    assert len(table(tmp_path)) == 2


def test_a_logger_whose_files_cannot_be_written_is_named_and_the_others_work(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").mkdir()
    log(Place(tmp_path), range(1, 2))
    assert len(notes(tmp_path)) == 1
    assert notes(tmp_path)[0].startswith("metrics_csv is set, but it cannot be used: IsADirectoryError")
    assert curve(tmp_path, "lr") == [(1, 1e-5)]


def test_a_csv_file_of_somebody_else_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("date;loss\nmonday;3\n")
    log(Place(tmp_path, before=tmp_path, step=4), range(5, 6))
    assert "metrics_csv is set, but it cannot be used: ValueError" in notes(tmp_path)[0]
    assert (tmp_path / "metrics.csv").read_text() == "date;loss\nmonday;3\n"


class Fails(Logger):
    """Works for a step, then never again."""

    heard = 0

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.heard += 1
        if step > 1:
            raise ConnectionError("the network is gone")


def test_a_logger_that_fails_on_the_way_is_named_once_and_left_out(tmp_path: Path, writer: EventWriter) -> None:
    loggers, fails = Loggers(writer), Fails()
    loggers.open("wandb_project", lambda: fails)
    for step in range(1, 6):
        loggers.scalars(step, {"lr": 1.0})
    loggers.examples([SAMPLE])
    loggers.close(failed=False)
    assert fails.heard == 2
    assert notes(tmp_path) == [
        "wandb_project is switched off for the rest of this training, which goes on: ConnectionError('the network is gone')"
    ]  # fmt: skip


def test_a_full_disk_ends_the_event_files_and_not_the_training(tmp_path: Path, writer: EventWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard writes in a thread of its own; what happens there is heard of."""
    monkeypatch.setattr(threading, "excepthook", lambda _ended: None)
    with opened(RunConfig(tensorboard=True), Stage.resampler, Place(tmp_path), writer) as loggers:
        inner = loggers._open["tensorboard"]._writer.file_writer.event_writer._async_writer._writer  # type: ignore[attr-defined]
        inner._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        for step in range(1, 50):
            loggers.scalars(step, {"lr": 1.0})
            loggers.examples([SAMPLE])
    assert len(notes(tmp_path)) == 1
    assert "tensorboard is switched off" in notes(tmp_path)[0]
    assert "No space left" in notes(tmp_path)[0]


def test_of_several_ranks_the_first_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log(Place(tmp_path), range(1, 3))
    assert {path.name for path in tmp_path.iterdir()} == {events.EVENTS_FILE}


def test_a_stage_logs_every_scalar_of_its_events_also_after_a_stop(config: RunConfig, tmp_path: Path) -> None:
    class AfterTwoSteps(StopRequest):
        def __bool__(self) -> bool:
            return len(metrics(tmp_path)) >= 2

    config = config.model_copy(update={"tensorboard": True, "metrics_csv": True})
    with pytest.raises(Stopped):
        train_stage(StageJob(config, Stage.resampler, tmp_path), AfterTwoSteps(tmp_path))
    train_stage(StageJob(config, Stage.resampler, tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt"), StopRequest(tmp_path))
    told = [(event.step, name, value) for event in metrics(tmp_path) for name, value in event.values.items()]
    assert table(tmp_path) == told
    assert curve(tmp_path, "val_loss") == [(step, round(value, 5)) for step, name, value in told if name == "val_loss"]
    assert [text for text in notes(tmp_path) if not text.startswith("resumed from")] == []


def metrics(directory: Path) -> list[Any]:
    path = directory / events.EVENTS_FILE
    return [event for _, event in events.read(path) if isinstance(event, Metric)] if path.exists() else []
