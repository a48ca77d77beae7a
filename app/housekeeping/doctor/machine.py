"""This machine: its disks, where artifacts go, its devices."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from app import artifacts
from app.devices import all_devices
from app.formats import size
from app.housekeeping.doctor.finding import Finding
from app.i18n import _
from app.settings import Settings

LEAST = 1 << 30
"""Bytes free below which the next checkpoint does not fit."""
LITTLE = 20 << 30


def check_disks(settings: Settings) -> Iterator[Finding]:
    """Room where the house writes. A directory that is not there yet is looked for above."""
    directory = settings.artifacts if isinstance(settings.artifacts, Path) else settings.scratch
    places = {"home": settings.home, "artifacts": directory, "cache": directory / "cache"}
    for name, path in places.items():
        there = next(parent for parent in (path, *path.parents) if parent.is_dir())
        usage = shutil.disk_usage(there)
        text = _("{path}: {free} of {total} free").format(path=path, free=size(usage.free), total=size(usage.total))
        do = _("make room: `Make room` on the checkpoints of a run's page shows what can go; a smaller PANOLLAVA_CACHE_GB empties the cache")
        level = "fail" if usage.free < LEAST else "warn" if usage.free < LITTLE else "ok"
        yield Finding(f"disk of {name}", level, text, "" if level == "ok" else do)  # type: ignore[arg-type]


def check_artifacts(settings: Settings) -> Iterator[Finding]:
    """Whether artifacts can be written where they go; of a store, whether it answers and lets us in."""
    yield _writable(settings.artifacts) if isinstance(settings.artifacts, Path) else _answering(settings.artifacts)


def _answering(place: str) -> Finding:
    try:
        artifacts.exists(artifacts.join(place, "doctor"))
    except artifacts.Away as error:
        return Finding("artifacts", "fail", str(error), _("look at PANOLLAVA_ARTIFACTS and the AWS_* variables of this process, then at the store"))
    return Finding("artifacts", "ok", _("{place} answers").format(place=place))


def _writable(path: Path) -> Finding:
    there = next(parent for parent in (path, *path.parents) if parent.is_dir())
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        text = _("{path} cannot be written: {error}").format(path=there, error=error.strerror)
        return Finding("artifacts", "fail", text, _("give the user of this process the right to, or name another directory with PANOLLAVA_ARTIFACTS"))
    return Finding("artifacts", "ok", _("{path} can be written").format(path=path))


def devices() -> list[str]:
    return all_devices()


def driver_is_silent() -> bool:
    """There is a driver's tool, and it lists no device."""
    return shutil.which("nvidia-smi") is not None and all_devices() == ["cpu"]
