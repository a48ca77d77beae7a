"""The newest values of a stage's main series, and how they have moved: the panel beside the charts. Reads only."""

import math
from dataclasses import dataclass

from sqlmodel import Session

from app.i18n import _
from app.metrics import service as metrics
from app.models import MetricSeries
from panollava.stages import Stage

MAIN = ("train_loss", "val_loss", "lr", "grad_norm", "samples_per_second", "data_wait")
AVERAGED = 50
"""Steps whose mean is set against the mean of as many before, where single values only jitter."""


@dataclass(frozen=True)
class Value:
    """One series as it stands."""

    name: str
    last: float
    change: float | None
    """None where it says nothing, or nothing can be said yet."""
    against: str
    """What the change is against, in words."""

    @property
    def is_better(self) -> bool:
        """Losses are to fall."""
        return self.change is not None and self.change < 0


@dataclass(frozen=True)
class Newest:
    """All of them, at the furthest step."""

    step: int
    values: list[Value]


def values(session: Session, run_id: int, stage: Stage) -> Newest | None:
    """Of the newest attempt of the stage that has any; None before the first."""
    found = [row for row, of in metrics.series(session, run_id) if of is stage]
    if not found:
        return None
    newest = max((row.job_id, row.attempt) for row in found)
    rows = {row.name: row for row in found if (row.job_id, row.attempt) == newest}
    shown = [_value(session, rows[name], stage) for name in MAIN if name in rows]
    return Newest(max(row.last_step for row in rows.values()), shown)


def _value(session: Session, row: MetricSeries, stage: Stage) -> Value:
    last = math.nan if row.last_value is None else row.last_value
    window, against = {
        "train_loss": (AVERAGED, _("mean of the last {n} steps against the {n} before").format(n=AVERAGED)),
        "val_loss": (1, _("against the validation before")),
    }.get(row.name, (0, ""))
    return Value(row.name, last, _change(_tail(session, row, stage, window), window) if window else None, against)


def _tail(session: Session, row: MetricSeries, stage: Stage, window: int) -> list[float]:
    """The last points, single ones; of a series with few points all."""
    start = row.last_step - 2 * window if window > 1 else None
    lines = metrics.query(session, row.run_id or 0, [row.name], stage, from_=start, points=max(4 * window, 1000))
    return next(line.buckets["last"].tolist() for line in lines if (line.job_id, line.attempt) == (row.job_id, row.attempt))


def _change(points: list[float], window: int) -> float | None:
    """Mean of the last `window` points minus that of as many before; None with fewer, or where one is not finite."""
    if len(points) < 2 * window:
        return None
    change = (sum(points[-window:]) - sum(points[-2 * window : -window])) / window
    return change if math.isfinite(change) else None
