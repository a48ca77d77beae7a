"""How far a job is, read in one way everywhere from what its trainer last said (`panollava.events.Progress`). Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

Said = Mapping[str, Any]
"""The column `progress` of a job; empty before the trainer has said anything."""


def is_reading(said: Said) -> bool:
    """Whether it looks at its images yet, before the work that is counted."""
    return said.get("unit") == "images"


def share(said: Said) -> float:
    """How much of the work is done, 0 to 1; nothing of it while it reads."""
    done, total = said.get("done"), said.get("total")
    return min(1.0, done / total) if done and total and not is_reading(said) else 0.0


def ends_at(said: Said) -> datetime | None:
    """As the trainer foresaw it; None while it cannot."""
    seconds, told_at = said.get("eta_seconds"), said.get("t")
    return None if seconds is None or told_at is None else datetime.fromtimestamp(told_at, UTC) + timedelta(seconds=seconds)


def left(said: Said, now: datetime) -> float | None:
    """Seconds until then."""
    end = ends_at(said)
    return None if end is None else max(0.0, (end - now).total_seconds())
