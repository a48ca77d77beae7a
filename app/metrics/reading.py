"""Series as they are read: the part that a chart shows in as few buckets as it has pixels for, or every value up to a step."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import ColumnElement, ScalarSelect
from sqlmodel import Session, col, func, select

from app.metrics import chunks
from app.metrics.chunks import FOLD, SIZE, Rows
from app.metrics.smoothing import Floats, Integers
from app.models import MetricChunk, MetricSeries


@dataclass(frozen=True)
class Window:
    """The part of a series that is asked for: from `start` to `end` on the axis, and no step beyond `cut`."""

    axis: Literal["step", "time"]
    start: float
    end: float
    cut: float

    def chunks(self, series_id: int, level: int) -> list[ColumnElement[bool]]:
        """What is true of a chunk of the level that has some of it, or of what is next to it."""
        first, last = (getattr(MetricChunk, name) for name in self._reach())
        limits = [col(MetricChunk.series_id) == series_id, col(MetricChunk.level) == level]

        def number(which: Any, holds: ColumnElement[bool]) -> ScalarSelect[int]:
            return select(which(MetricChunk.number)).where(*limits[:2], holds).correlate(None).scalar_subquery()

        if math.isfinite(self.start):
            limits.append(col(MetricChunk.number) >= number(func.min, last >= self.start) - 1)
        if math.isfinite(self.end):
            limits.append(col(MetricChunk.number) <= number(func.max, first <= self.end) + 1)
        if math.isfinite(self.cut):
            limits.append(col(MetricChunk.first_step) <= self.cut)
        return limits

    def inside(self, rows: Rows) -> slice:
        """Where the buckets lie that have some of it, whatever the cut; (k, k) if it lies between two, (0, 0) if before or behind all."""
        first, last = self._reach()
        begun, not_over = np.flatnonzero(rows[first] <= self.end), np.flatnonzero(rows[last] >= self.start)
        return slice(int(not_over[0]), int(begun[-1]) + 1) if len(begun) and len(not_over) else slice(0, 0)

    def part(self, rows: Rows) -> slice:
        """The same with the one before and the one behind, so that a line reaches both edges."""
        inside = self.inside(rows)
        return slice(max(inside.start - 1, 0), inside.stop + 1) if inside.stop else inside

    def _reach(self) -> tuple[str, str]:
        return ("first_step", "last_step") if self.axis == "step" else ("first_t", "last_t")


@dataclass(frozen=True)
class Part:
    """Some of a series: buckets in the order of their points."""

    buckets: Rows
    first: int = 0
    """Points of the series before the first bucket."""

    def ends(self) -> Integers:
        """Points of the series up to the last one of each bucket. [n]"""
        ends: Integers = self.first + np.cumsum(self.buckets["count"])
        return ends


NOTHING = Part(np.empty(0, chunks.BUCKET))


def read(session: Session, series: MetricSeries, window: Window, points: int) -> Part:
    """The coarsest level with at least `points` buckets in the window, folded to less than twice as many. Reads O(points) rows."""
    level = max([0, *(level for level, rows in enumerate(chunks.lengths(series.count)) if rows >= points)])
    part = _level(session, series.id, level, window)
    while len(part.buckets[window.inside(part.buckets)]) < points and level > 0:
        level -= 1
        part = _level(session, series.id, level, window)
    return _folded(part, window.inside(part.buckets), points)


def _folded(part: Part, inside: slice, points: int) -> Part:
    """What is next to the window stays as it is: folded with what lies inside, it would begin or end there."""
    rows = part.buckets
    if (by := len(rows[inside]) // points) <= 1:
        return part
    return Part(np.concatenate([rows[: inside.start], chunks.fold(rows[inside], by), rows[inside.stop :]]), part.first)


def values(session: Session, series: MetricSeries, cut: float) -> Floats:
    """Every value up to step `cut`. Reads O(all points) rows. [n]"""
    window = Window("step", -math.inf, end=cut, cut=math.inf)
    query = select(MetricChunk.data).where(*window.chunks(series.id, 0)).order_by(col(MetricChunk.number))
    rows = np.concatenate([chunks.points([]), *(chunks.unpack(data, 0) for data in session.exec(query))])
    counted = np.flatnonzero(rows["step"] <= cut)
    found: Floats = rows["value"][: counted[-1] + 1] if len(counted) else np.empty(0)
    return found


def _level(session: Session, series_id: int, level: int, window: Window) -> Part:
    """Buckets of one level in the window."""
    found = session.exec(select(MetricChunk).where(*window.chunks(series_id, level)).order_by(col(MetricChunk.number))).all()
    if not found:
        return NOTHING
    rows = np.concatenate([chunks.buckets(chunks.unpack(each.data, level)) for each in found])
    part = window.part(rows)
    first = found[0].number * SIZE + part.start
    return Part(_until(session, series_id, level, first, rows[part], window.cut), first * FOLD**level)


def _until(session: Session, series_id: int, level: int, first: int, rows: Rows, cut: float) -> Rows:
    """The rows up to step `cut`. A bucket that reaches beyond it is taken apart, level by level. `first` is the number of rows[0]."""
    whole = rows[rows["last_step"] <= cut]
    if level == 0 or len(whole) == len(rows):
        return whole
    child = (first + len(whole)) * FOLD
    chunk = session.get_one(MetricChunk, (series_id, level - 1, child // SIZE))
    children = chunks.buckets(chunks.unpack(chunk.data, level - 1))[child % SIZE :][:FOLD]
    return np.concatenate([whole, _until(session, series_id, level - 1, child, children, cut)])
