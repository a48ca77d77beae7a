"""The differences of all questions, sorted, as shapes in a box of 1000 x 100 that the page draws as SVG."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from app.evaluations.samples import Floats
from panollava.metrics.compare import TIE

WIDTH, HEIGHT = 1000.0, 100.0
SHAPES, TARGETS = 400, 100
"""Most points of the curve, and most places that lead to a question."""


@dataclass(frozen=True)
class Tick:
    """A line across, `at` percent from the top."""

    at: float
    text: str


@dataclass(frozen=True)
class Target:
    """A stretch of the curve that leads to the question in its middle."""

    x: float
    width: float
    question: int
    rank: int
    delta: float


@dataclass(frozen=True)
class Curve:
    """Best first. `ahead` and `behind` are areas between the curve and 0."""

    ahead: str
    behind: str
    zero: float
    ticks: list[Tick]
    targets: list[Target]
    wins: int
    ties: int
    losses: int
    order: list[int]
    """Questions by rank."""
    deltas: list[float]

    @property
    def count(self) -> int:
        return len(self.order)

    def spot(self, question: int) -> tuple[float, float] | None:
        """Where a question is on the curve, percent from the left and the top; None if it is not judged."""
        if question not in self.order:
            return None
        rank = self.order.index(question)
        return _x(rank, self.count) / WIDTH * 100, self.y(self.deltas[rank])

    def above(self, share: float) -> float:
        """Percent from the top for a word over the curve that begins after this share of the questions."""
        return max(self.y(max(self.deltas[int(share * (self.count - 1))], 0.0)) - 5, 7.0)

    def below(self, share: float) -> float:
        """Percent from the top for a word under the curve that ends at this share of the questions."""
        return min(self.y(min(self.deltas[int(share * (self.count - 1))], 0.0)) + 11, 96.0)

    def y(self, delta: float) -> float:
        """Percent from the top."""
        top, bottom = _range(self.deltas)
        return round(HEIGHT * (top - delta) / (top - bottom), 2)


def curve(differences: Floats) -> Curve | None:
    """None where no question is judged. [G]"""
    judged = np.flatnonzero(~np.isnan(differences))
    if not len(judged):
        return None
    order = judged[np.argsort(-differences[judged], kind="stable")]
    sorted_ = differences[order]
    wins, losses = int((sorted_ > TIE).sum()), int((sorted_ < -TIE).sum())
    top, bottom = _range(sorted_.tolist())
    ys = HEIGHT * (top - sorted_) / (top - bottom)
    zero = HEIGHT * top / (top - bottom)
    count = len(order)
    return Curve(
        ahead=_area(ys[:wins], 0, count, zero), behind=_area(ys[count - losses :], count - losses, count, zero), zero=round(zero, 2),
        ticks=_ticks(top, bottom), targets=_targets(order, sorted_), wins=wins, ties=count - wins - losses, losses=losses,
        order=order.tolist(), deltas=sorted_.tolist(),
    )  # fmt: skip


def _range(deltas: list[float]) -> tuple[float, float]:
    """The highest and the lowest value shown; 0 is always in sight."""
    top, bottom = max(deltas[0], 0.0), min(deltas[-1], 0.0)
    margin = 0.06 * (top - bottom) or 1.0
    return top + margin, bottom - margin


def _x(rank: float, count: int) -> float:
    return round(WIDTH * (rank + 0.5) / count, 2)


def _area(ys: Floats, first: int, count: int, zero: float) -> str:
    """A closed path along the curve and back along 0. Each question is as wide as any other."""
    if not len(ys):
        return ""
    places = np.unique(np.linspace(0, len(ys) - 1, min(SHAPES, len(ys))).round().astype(int))
    along = [f"{_x(first + place, count)} {ys[place]:.2f}" for place in places.tolist()]
    left, right = (round(WIDTH * (first + edge) / count, 2) for edge in (0, len(ys)))
    return f"M{left} {zero:.2f}L{left} {ys[0]:.2f}L{'L'.join(along)}L{right} {ys[-1]:.2f}L{right} {zero:.2f}Z"


def _targets(order: np.ndarray[tuple[int], np.dtype[np.intp]], deltas: Floats) -> list[Target]:
    count = len(order)
    edges = np.linspace(0, count, min(TARGETS, count) + 1).round().astype(int).tolist()
    middles = [(first, after, (first + after - 1) // 2) for first, after in pairwise(edges)]
    return [
        Target(round(WIDTH * first / count, 2), round(WIDTH * (after - first) / count, 2), int(order[at]), at + 1, float(deltas[at]))
        for first, after, at in middles
    ]


def _ticks(top: float, bottom: float) -> list[Tick]:
    """Two to five round values."""
    step = _round_up((top - bottom) / 4)
    values = [number * step for number in range(math.ceil(bottom / step), math.floor(top / step) + 1)]
    return [Tick(round(HEIGHT * (top - value) / (top - bottom), 2), f"{value:g}".replace("-", "−")) for value in values]


def _round_up(value: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)
