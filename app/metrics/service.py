"""Metric series in the database: appended to on every level at once, read as the few buckets that a chart has pixels for.

That every point comes once is not this module's business: whoever appends counts the bytes it has read.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from app.metrics import chunks, reading, smoothing
from app.metrics.chunks import FOLD, SIZE, Rows
from app.metrics.reading import Part, Window
from app.metrics.smoothing import Curve
from app.models import Attempt, Job, MetricChunk, MetricSeries, StageRun
from panollava.events import jsonable
from panollava.stages import Stage

Axis = Literal["step", "epoch", "time"]
Point = tuple[int, float, float]
"""Step, seconds since 1970, value."""
Tails = dict[tuple[int, int], MetricChunk]
"""The last chunk of each level, by series and level."""


def append(session: Session, job: Job, attempt: int, points: Mapping[str, Sequence[Point]]) -> None:
    """Add points to the named series of an attempt, in the order given. Rewrites one chunk of each level."""
    grown = _grown(session, job, attempt, {name for name, added in points.items() if added})
    tails = _tails(session, grown.values())
    for name, each in grown.items():
        _extend(session, each, tails, chunks.points(points[name]))


def _grown(session: Session, job: Job, attempt: int, names: Collection[str]) -> dict[str, MetricSeries]:
    """The series of these names, begun where there is none."""
    mine = (MetricSeries.job_id == job.id, MetricSeries.attempt == attempt, col(MetricSeries.name).in_(names))
    found = {each.name: each for each in session.exec(select(MetricSeries).where(*mine))}
    found |= {name: MetricSeries(run_id=job.run_id, job_id=job.id, attempt=attempt, name=name) for name in names if name not in found}
    session.add_all(found.values())
    session.flush()
    return found


def _tails(session: Session, series: Iterable[MetricSeries]) -> Tails:
    ends = [(each.id, level, (rows - 1) // SIZE) for each in series if each.count for level, rows in enumerate(chunks.lengths(each.count))]
    key = tuple_(col(MetricChunk.series_id), col(MetricChunk.level), col(MetricChunk.number))
    return {(each.series_id, each.level): each for each in session.exec(select(MetricChunk).where(key.in_(ends)))}


def _extend(session: Session, series: MetricSeries, tails: Tails, points: Rows) -> None:
    """Write the points, and on each level above the buckets that they change or begin: `new`, from row `start` on."""
    levels, levels_before = len(chunks.lengths(series.count + len(points))), len(chunks.lengths(series.count))
    new, start = points, series.count
    for level in range(levels):
        tail = tails.get((series.id, level))
        base = tail.number * SIZE if tail else 0  # the row that `rows` begins with
        rows = np.concatenate([chunks.unpack(tail.data, level)[: start - base], new]) if tail else new
        for number in range(start // SIZE, (base + len(rows) - 1) // SIZE + 1):
            filled = _filled(rows[number * SIZE - base : (number + 1) * SIZE - base])
            known = tail if tail and tail.number == number else None
            session.add(known.sqlmodel_update(filled) if known else MetricChunk(series_id=series.id, level=level, number=number, **filled))
        if level + 1 < levels:
            start = start // FOLD if level + 1 < levels_before else 0  # a new level begins with all that is below it: one chunk so far
            new = chunks.fold(rows[start * FOLD - base :])
    series.count += len(points)
    series.last_step, series.last_value = int(points["step"][-1]), _storable(float(points["value"][-1]))
    session.add(series)


def _filled(rows: Rows) -> dict[str, Any]:
    """Columns of a chunk that holds these rows."""
    ends = chunks.fold(rows, by=len(rows))[0]
    reach = {name: ends[name].item() for name in ("first_step", "last_step", "first_t", "last_t")}
    return reach | {"data": chunks.pack(rows)}


def _storable(value: float) -> float | None:
    return None if np.isnan(value) else value


@dataclass(frozen=True)
class Line:
    """What a chart draws of one series: buckets in the order of their points."""

    name: str
    stage: Stage | None
    job_id: int
    attempt: int
    points: int
    """Points of the whole series, however many of them the buckets stand for."""
    steps_per_epoch: float | None
    """Step over this is the epoch. None until the trainer has told of an epoch."""
    buckets: Rows
    ema: Curve | None
    """At the last point of each bucket, if it was asked for."""

    @property
    def ema_count(self) -> int | None:
        """Finite points in the last of `ema`, those of older attempts included; 0 where there is no bucket."""
        if self.ema is None:
            return None
        return int(self.ema.counts[-1]) if len(self.buckets) else 0

    def columns(self) -> dict[str, Any]:
        """Lists by column, ready for JSON."""
        columns = {name: jsonable(self.buckets[name].tolist()) for name in self.buckets.dtype.names or ()}
        return columns | ({"ema": jsonable(self.ema.values.tolist())} if self.ema else {})


def series(session: Session, run_id: int) -> list[tuple[MetricSeries, Stage | None]]:
    """Every series of a run with its stage, by name, older attempts first; a row knows its count and its last value."""
    query = select(MetricSeries, StageRun.stage).join(Job, col(Job.id) == MetricSeries.job_id).outerjoin(StageRun, col(StageRun.id) == Job.stage_id)
    order = (col(MetricSeries.name), col(MetricSeries.job_id), col(MetricSeries.attempt))
    return [(each, Stage(stage) if stage else None) for each, stage in session.exec(query.where(MetricSeries.run_id == run_id).order_by(*order))]


def query(
    session: Session, run_id: int, names: Collection[str] | None = None, stage: Stage | None = None, x: Axis = "step",
    from_: float | None = None, to: float | None = None, points: int = 1000, smooth: float = 0.0,
) -> list[Line]:  # fmt: skip
    """The named series of a run, or all, one line per attempt, each in `points` to 2 x `points` buckets where it has as many points.

    `from_` and `to` are on the axis `x`: steps, epochs, or seconds since 1970. The buckets next to that range come with it, so that a line
    reaches both edges of a chart. A line ends where a newer attempt of its job took over. `smooth`, in [0, 1), adds an exponential mean
    over all points of the job's attempts, up to the last of each bucket: the same curve whatever part of it is asked for.
    """
    ends = (-math.inf if from_ is None else from_, math.inf if to is None else to)
    wanted = [each for each in _sources(session, run_id) if (not names or each.series.name in names) and stage in (None, each.stage)]
    lines = []
    for _, attempts in groupby(wanted, lambda each: (each.series.name, each.series.job_id)):
        of_job = [(each, each.part(session, x, *ends, points)) for each in attempts]
        curves = _smooth(session, of_job, smooth) if smooth else [None] * len(of_job)
        lines += [each.line(part, curve) for (each, part), curve in zip(of_job, curves, strict=True)]
    return lines


@dataclass(frozen=True)
class _Source:
    """A series, and what of its attempt must be known to read it."""

    series: MetricSeries
    stage: Stage | None
    cut: float
    """The last step that counts."""
    steps_per_epoch: float | None

    def part(self, session: Session, x: Axis, start: float, end: float, points: int) -> Part:
        """Nothing on an axis of epochs that the trainer has not told of."""
        if x == "epoch":
            if self.steps_per_epoch is None:
                return reading.NOTHING
            start, end = (round(bound * self.steps_per_epoch, 6) for bound in (start, end))  # 0.07 * 100 is more than 7
        return reading.read(session, self.series, Window("time" if x == "time" else "step", start, end, self.cut), points)

    def line(self, part: Part, curve: Curve | None) -> Line:
        of = self.series
        return Line(of.name, self.stage, of.job_id, of.attempt, of.count, self.steps_per_epoch, part.buckets, curve)


def _sources(session: Session, run_id: int) -> list[_Source]:
    attempts = {(each.job_id, each.number): each for each in session.exec(select(Attempt).join(Job).where(Job.run_id == run_id))}
    cuts = _cuts(attempts.values())
    found = ((each, stage, (each.job_id, each.attempt)) for each, stage in series(session, run_id))
    return [_Source(each, stage, cuts[key], attempts[key].steps_per_epoch) for each, stage, key in found]


def _smooth(session: Session, of_job: Sequence[tuple[_Source, Part]], weight: float) -> list[Curve]:
    """One curve through the attempts of a job: an older one up to its cut, then the newer. For each part its piece."""
    shown = [len(part.buckets) for _, part in of_job]
    if not any(shown):
        return [smoothing.NOTHING for _ in of_job]
    values = [reading.values(session, source.series, source.cut) for source, _ in of_job]
    before = np.cumsum([0, *map(len, values)])[:-1]
    ends = [start + part.ends() for start, (_, part) in zip(before, of_job, strict=True)]
    return smoothing.smooth(np.concatenate(values), np.concatenate(ends), weight).split(shown)


def _cuts(attempts: Iterable[Attempt]) -> dict[tuple[int, int], float]:
    """The last step that counts of each attempt: the smallest that any newer attempt of the job resumed from."""
    cuts: dict[tuple[int, int], float] = {}
    resumed: dict[int, float] = {}
    for each in sorted(attempts, key=lambda each: -each.number):
        cuts[each.job_id, each.number] = resumed.get(each.job_id, math.inf)
        resumed[each.job_id] = min(each.resumed_step, cuts[each.job_id, each.number])
    return cuts
