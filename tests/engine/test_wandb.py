"""Weights & Biases: on when a project is named and it can be used, never required."""

from pathlib import Path

import pytest
import wandb

from panollava import events
from panollava.config import RunConfig
from panollava.events import EventWriter, Note
from panollava.stages import Stage
from panollava.training.sinks import wandb_sink

NAMED = RunConfig(wandb_project="panoramas")


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()  # it reads its environment once


def sink(config: RunConfig, directory: Path) -> tuple[object, list[str]]:
    writer = EventWriter(directory / events.EVENTS_FILE)
    made = wandb_sink(config, Stage.vision, writer)
    writer.close()
    return made, [event.text for _, event in events.read(directory / events.EVENTS_FILE) if isinstance(event, Note)]


def test_without_a_project_it_is_off_and_says_nothing(tmp_path: Path) -> None:
    assert sink(RunConfig(), tmp_path) == (None, [])


def test_without_a_login_it_is_off_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    made, notes = sink(NAMED, tmp_path)
    assert made is None
    assert "there is no login" in notes[0]


def test_offline_it_writes_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    made, notes = sink(NAMED, tmp_path)
    assert callable(made)
    made(1, {"train_loss": 1.0})
    wandb.finish()
    assert notes == []
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
