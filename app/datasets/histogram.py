"""Bars for a chart of how often which number occurs. Pure arithmetic; the drawing is in templates/datasets/_histogram.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BARS = 24


@dataclass(frozen=True)
class Bar:
    """`count` of the numbers lie in low..high, both included. `height` is its share of the highest bar."""

    low: int
    high: int
    count: int
    height: float

    @property
    def name(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True)
class Histogram:
    bars: Sequence[Bar]
    total: int
    low: int
    high: int
    median: int


def histogram(counts: Mapping[int, int], most: int = BARS) -> Histogram | None:
    """At most so many bars, equally wide in whole numbers, gaps included; nothing for no numbers."""
    if not counts:
        return None
    low, high, total = min(counts), max(counts), sum(counts.values())
    width = -(-(high - low + 1) // most)
    sums = [sum(counts.get(number, 0) for number in range(start, start + width)) for start in range(low, high + 1, width)]
    highest = max(sums)
    bars = [Bar(low + n * width, min(low + (n + 1) * width - 1, high), count, count / highest) for n, count in enumerate(sums)]
    return Histogram(bars, total, low, high, _median(counts, total))


def _median(counts: Mapping[int, int], total: int) -> int:
    """The lower one of the two in the middle."""
    passed = 0
    for number in sorted(counts):
        passed += counts[number]
        if passed * 2 >= total:
            return number
    raise AssertionError
