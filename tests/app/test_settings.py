"""Settings come from the environment, absolute and with defaults that follow from each other."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.errors import Forbidden
from app.paths import SHIPPED, allowed
from app.settings import Settings


def test_everything_lies_in_home_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOLLAVA_HOME", str(tmp_path / "a" / ".." / "home"))
    settings = Settings()
    assert settings.home == tmp_path / "home"
    assert settings.database_url == f"sqlite:///{tmp_path}/home/panollava.db"
    assert settings.artifacts == tmp_path / "home" / "runs"
    assert settings.roots == [Path.cwd()]


def test_lists_are_written_as_a_shell_would(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOLLAVA_ROOTS", f"{tmp_path}/data:{tmp_path}/more")
    monkeypatch.setenv("PANOLLAVA_ALLOWED_HOSTS", "lab.example,localhost")
    settings = Settings()
    assert settings.roots == [tmp_path / "data", tmp_path / "more"]
    assert settings.allowed_hosts == ["lab.example", "localhost"]


def test_what_cannot_be_is_refused(monkeypatch):
    monkeypatch.setenv("PANOLLAVA_PORT", "70000")
    with pytest.raises(ValidationError, match="port"):
        Settings()


def test_artifacts_and_shipped_models_are_open_without_being_roots(tmp_path):
    settings = Settings(home=tmp_path / "home", roots=[tmp_path / "data"])
    for path in (settings.artifacts / "run-1" / "best.ckpt", tmp_path / "data" / "train.csv", SHIPPED / "demo_models" / "vision"):
        assert allowed(settings, "field", str(path)) == path
    with pytest.raises(Forbidden):
        allowed(settings, "field", str(tmp_path / "home" / "panollava.db"))
