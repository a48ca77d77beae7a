"""Weights & Biases: on when a project is named and it can be used, never required, and one run however often a training is resumed."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from panollava import events
from panollava.config import RunConfig
from panollava.events import EventWriter, Metric, Note, Sample
from panollava.stages import Stage
from panollava.training.loggers import Place, opened

NAMED = RunConfig(wandb_project="panoramas")
BLOCK, WHOLE, LAST = 32 * 1024, 1, 4


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()  # it reads its environment once


def log(config: RunConfig, place: Place, steps: range = range(0)) -> list[str]:
    """A training of these steps, the last of which is validated; its notes."""
    writer = EventWriter(place.directory / events.EVENTS_FILE)
    with opened(config, Stage.vision, place, writer) as loggers:
        for step in steps:
            said = [{"train_loss": 1.0 / step}, *([{"val_loss": 2.0}] if step == steps[-1] else [])]
            for values in said:
                writer.write(Metric(step=step, epoch=1.0, values=values))
                loggers.scalars(step, values)
        if steps:
            sample = Sample(step=steps[-1], url="a.jpg", query="What?", references=["This."], prediction="That.")
            writer.write(sample)
            loggers.examples([sample])
    writer.close()
    return [event.text for _, event in events.read(place.directory / events.EVENTS_FILE) if isinstance(event, Note)]


def rows(directory: Path) -> list[dict[str, Any]]:
    """What the offline run in a directory holds, in the order written."""
    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    return [{item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in row.item} for row in _history(path)]


def _history(path: Path) -> Iterator[Any]:
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield record.history


def _records(content: bytes) -> Iterator[bytes]:
    """LevelDB's log format: blocks of 32 KiB; each piece has a checksum, its length, and whether it is a whole record or its first or last part."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def test_without_a_project_it_is_off_and_says_nothing(tmp_path: Path) -> None:
    assert log(RunConfig(), Place(tmp_path), range(1, 3)) == []
    assert not (tmp_path / "wandb").exists()


def test_without_a_login_it_is_off_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()
    (note,) = log(NAMED, Place(tmp_path), range(1, 3))
    assert note == "wandb_project is set, but there is no login: run `wandb login`, or set WANDB_MODE=offline."


def test_offline_it_writes_scalars_and_example_answers_beside_the_checkpoints(tmp_path: Path) -> None:
    assert log(NAMED, Place(tmp_path), range(1, 3)) == []
    first, second, validation, answers = rows(tmp_path)
    assert [(first["step"], first["train_loss"]), (second["step"], second["train_loss"])] == [(1, 1.0), (2, 0.5)]
    assert (validation["step"], validation["val_loss"]) == (2, 2.0)
    assert answers["step"] == 2
    (answered,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(answered.read_text())["data"] == [["a.jpg", "What?", "This.", "That."]]


def test_a_resumed_training_goes_on_in_its_run_and_repeats_no_step(tmp_path: Path) -> None:
    """The first attempt came to step 6, the second went on from 4 and came to 5, the third goes on from 5: W&B has everything up to 6 already."""
    places = [Place(tmp_path / "1"), Place(tmp_path / "2", tmp_path / "1", 4), Place(tmp_path / "3", tmp_path / "2", 5)]
    for place, steps in zip(places, (range(1, 7), range(5, 6), range(6, 9)), strict=True):
        assert log(NAMED, place, steps) == []
    ids = [json.loads((place.directory / "wandb.json").read_text())["id"] for place in places]
    assert len(set(ids)) == 1
    assert list((tmp_path / "3").glob(f"wandb/offline-run-*-{ids[0]}"))
    assert [row["step"] for row in rows(tmp_path / "3") if "train_loss" in row] == [7, 8]
    assert [row["step"] for row in rows(tmp_path / "3") if "val_loss" in row] == [8]


def test_a_training_that_goes_on_under_another_name_has_a_run_of_its_own(tmp_path: Path) -> None:
    log(NAMED, Place(tmp_path / "1"), range(1, 4))
    log(NAMED.model_copy(update={"name": "other"}), Place(tmp_path / "2", tmp_path / "1", 2), range(3, 5))
    first, second = (json.loads((tmp_path / name / "wandb.json").read_text()) for name in ("1", "2"))
    assert first["id"] != second["id"]
    assert [row["step"] for row in rows(tmp_path / "2") if "train_loss" in row] == [3, 4]
