"""How far a job is, read in one way everywhere from what its trainer last said (`panollava.events.Progress`). Pure.

Ages and forecasts count from when it was stored, by the database's clock: the trainer's own may be minutes off.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

Said = Mapping[str, Any]
"""The column `progress` of a job; empty before the trainer has said anything."""
HEARD_AT = "heard_at"
"""Key in it: when it was stored, in seconds since 1970."""


def is_reading(said: Said) -> bool:
    """Whether it looks at its images yet, before the work that is counted."""
    return said.get("unit") == "images"


def share(said: Said) -> float:
    """How much of the work is done, 0 to 1; nothing of it while it reads."""
    done, total = said.get("done"), said.get("total")
    return min(1.0, done / total) if done and total and not is_reading(said) else 0.0


def step(said: Said) -> int | None:
    """The last optimizer step that was told of."""
    return said["done"] if said.get("unit") == "steps" else None


def heard_at(said: Said) -> datetime | None:
    """When it was stored. Rows of before this was noted have the trainer's own time."""
    at = said.get(HEARD_AT, said.get("t"))
    return None if at is None else datetime.fromtimestamp(at, UTC)


def ends_at(said: Said) -> datetime | None:
    """As the trainer foresaw it; None while it cannot."""
    seconds, told_at = said.get("eta_seconds"), heard_at(said)
    return None if seconds is None or told_at is None else told_at + timedelta(seconds=seconds)


def left(said: Said, now: datetime) -> float | None:
    """Seconds until then."""
    end = ends_at(said)
    return None if end is None else max(0.0, (end - now).total_seconds())
