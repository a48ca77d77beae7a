"""Metric series in the database: appended to on every level at once, read as the few buckets that a chart has pixels for.

That every point comes once is not this module's business: whoever appends counts the bytes it has read.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import ColumnElement, tuple_
from sqlmodel import Session, col, select

from app.metrics import chunks
from app.metrics.chunks import FOLD, SIZE, Rows
from app.models import Attempt, Job, MetricChunk, MetricSeries, StageRun
from panollava.events import jsonable
from panollava.stages import Stage

Axis = Literal["step", "time"]
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
    buckets: Rows

    def columns(self) -> dict[str, Any]:
        """Lists by column, ready for JSON."""
        return {name: jsonable(self.buckets[name].tolist()) for name in self.buckets.dtype.names or ()}


def series(session: Session, run_id: int) -> list[tuple[MetricSeries, Stage | None]]:
    """Every series of a run with its stage, by name, older attempts first; a row knows its count and its last value."""
    query = select(MetricSeries, StageRun.stage).join(Job, col(Job.id) == MetricSeries.job_id).outerjoin(StageRun, col(StageRun.id) == Job.stage_id)
    order = (col(MetricSeries.name), col(MetricSeries.job_id), col(MetricSeries.attempt))
    return [(each, Stage(stage) if stage else None) for each, stage in session.exec(query.where(MetricSeries.run_id == run_id).order_by(*order))]


def query(
    session: Session, run_id: int, names: Collection[str] | None = None, stage: Stage | None = None, x: Axis = "step",
    from_: float | None = None, to: float | None = None, points: int = 1000,
) -> list[Line]:  # fmt: skip
    """The named series of a run, or all, one line per attempt, each in `points` to 2 x `points` buckets where it has as many points.

    `from_` and `to` are on the axis `x`: steps, or seconds since 1970. A line ends where a newer attempt of its job took over.
    """
    cuts = _cuts(session, run_id)
    window = (x, -math.inf if from_ is None else from_, math.inf if to is None else to)
    wanted = [row for row in series(session, run_id) if (not names or row[0].name in names) and stage in (None, row[1])]
    return [
        Line(each.name, of, each.job_id, each.attempt, each.count, _read(session, each, Window(*window, cuts[each.job_id, each.attempt]), points))
        for each, of in wanted
    ]


def _cuts(session: Session, run_id: int) -> dict[tuple[int, int], float]:
    """The last step that counts of each attempt: the smallest that any newer attempt of the job resumed from."""
    attempts = select(Attempt).join(Job).where(Job.run_id == run_id).order_by(col(Attempt.number).desc())
    cuts: dict[tuple[int, int], float] = {}
    resumed: dict[int, float] = {}
    for each in session.exec(attempts):
        cuts[each.job_id, each.number] = resumed.get(each.job_id, math.inf)
        resumed[each.job_id] = min(each.resumed_step, cuts[each.job_id, each.number])
    return cuts


@dataclass(frozen=True)
class Window:
    """The part of a series that is asked for: from `start` to `end` on the axis, and no step beyond `cut`."""

    axis: Axis
    start: float
    end: float
    cut: float

    def chunks(self) -> list[ColumnElement[bool]]:
        """What is true of a chunk that has some of it."""
        steps = self.axis == "step"
        first, last = (MetricChunk.first_step, MetricChunk.last_step) if steps else (MetricChunk.first_t, MetricChunk.last_t)
        limits = [(self.start, col(last).__ge__), (self.end, col(first).__le__), (self.cut, col(MetricChunk.first_step).__le__)]
        return [holds(limit) for limit, holds in limits if math.isfinite(limit)]

    def part(self, rows: Rows) -> slice:
        """Where the buckets lie that have some of it; the rows around it stay out."""
        first, last = ("first_step", "last_step") if self.axis == "step" else ("first_t", "last_t")
        inside = np.flatnonzero((rows[last] >= self.start) & (rows[first] <= self.end) & (rows["first_step"] <= self.cut))
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def _read(session: Session, series: MetricSeries, window: Window, points: int) -> Rows:
    """The coarsest level with at least `points` buckets in the window, folded to less than twice as many. Reads O(points) rows."""
    level = max([0, *(level for level, rows in enumerate(chunks.lengths(series.count)) if rows >= points)])
    rows = _level(session, series, level, window)
    while len(rows) < points and level > 0:
        level -= 1
        rows = _level(session, series, level, window)
    return chunks.fold(rows, by) if (by := len(rows) // points) > 1 else rows


def _level(session: Session, series: MetricSeries, level: int, window: Window) -> Rows:
    """Buckets of one level in the window."""
    of_level = (MetricChunk.series_id == series.id, MetricChunk.level == level)
    found = session.exec(select(MetricChunk).where(*of_level, *window.chunks()).order_by(col(MetricChunk.number))).all()
    if not found:
        return np.empty(0, chunks.BUCKET)
    rows = np.concatenate([chunks.buckets(chunks.unpack(each.data, level)) for each in found])
    part = window.part(rows)
    return _until(session, series, level, found[0].number * SIZE + part.start, rows[part], window.cut)


def _until(session: Session, series: MetricSeries, level: int, first: int, rows: Rows, cut: float) -> Rows:
    """The rows up to step `cut`. A bucket that reaches beyond it is taken apart, level by level. `first` is the number of rows[0]."""
    whole = rows[rows["last_step"] <= cut]
    if level == 0 or len(whole) == len(rows):
        return whole
    child = (first + len(whole)) * FOLD
    chunk = session.get_one(MetricChunk, (series.id, level - 1, child // SIZE))
    children = chunks.buckets(chunks.unpack(chunk.data, level - 1))[child % SIZE :][:FOLD]
    return np.concatenate([whole, _until(session, series, level - 1, child, children, cut)])
