"""What a line of the benchmark is, what its bar is, and how two ways are measured in turns. Knows nothing of what is measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

SURE = 0.99
"""How sure an interval is to hold the true median. A bar is missed when all of the interval is on its wrong side, so that a busy machine
fails about one good line in two hundred and hides no more than the interval, which stands in the table."""


@dataclass(frozen=True)
class Pair:
    """Ours and the peer's way to the same result, ready to run."""

    ours: Callable[[], Any]
    peer: Callable[[], Any]


@dataclass(frozen=True)
class Round:
    """Milliseconds of both, one right after the other."""

    ours: float
    peer: float


@dataclass(frozen=True)
class Bar:
    """What a round comes to, and its limit: the least where more is better, else the most."""

    limit: float
    figure: Callable[[Round], float]
    words: str
    more_is_better: bool

    def holds(self, low: float, high: float) -> bool:
        return high >= self.limit if self.more_is_better else low <= self.limit

    def __str__(self) -> str:
        return f"at {'least' if self.more_is_better else 'most'} {self.limit:g}{self.words}"


def times_as_fast(limit: float) -> Bar:
    return Bar(limit, lambda each: each.peer / each.ours, " times as fast", more_is_better=True)


def percent_longer(limit: float) -> Bar:
    return Bar(limit, lambda each: 100 * (each.ours / each.peer - 1), " % longer", more_is_better=False)


def microseconds_more(limit: float) -> Bar:
    return Bar(limit, lambda each: 1000 * (each.ours - each.peer), " µs more", more_is_better=False)


@dataclass(frozen=True)
class Line:
    """A claim: what is done, what it is held against, its bar, and what measures a number of rounds."""

    what: str
    against: str
    bar: Bar
    rounds: Callable[[int], Sequence[Round]]


@dataclass(frozen=True)
class Measured:
    """Medians, milliseconds. `found` is the median of the rounds' own figures, so that a machine which is busy for a while cancels out."""

    line: Line
    ours: float
    peer: float
    found: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.line.bar.holds(self.low, self.high)

    def __str__(self) -> str:
        """As a row of the table."""
        verdict = "" if self.holds else " **missed**"
        found = f"{self.found:.1f} ({self.low:.1f} to {self.high:.1f})"
        return f"| {self.line.what} | {self.line.against} | {_short(self.peer)} | {_short(self.ours)} | {found} | {self.line.bar}{verdict} |"


HEAD = "| what | against | peer, ms | ours, ms | found (99 % interval) | bar |\n|---|---|---|---|---|---|"
LINES: list[Line] = []


def line(what: str, *, against: str, at_least: float) -> Callable[[Callable[[], Pair]], Callable[[], Pair]]:
    """Register a function that prepares a pair as a line of the benchmark: ours is so many times as fast."""

    def register(prepare: Callable[[], Pair]) -> Callable[[], Pair]:
        LINES.append(Line(what, against, times_as_fast(at_least), partial(in_turns, prepare)))
        return prepare

    return register


def measured_line(what: str, *, against: str, bar: Bar) -> Callable[[Callable[[int], list[Round]]], Callable[[int], list[Round]]]:
    """Register a function that measures so many rounds by itself."""

    def register(rounds: Callable[[int], list[Round]]) -> Callable[[int], list[Round]]:
        LINES.append(Line(what, against, bar, rounds))
        return rounds

    return register


def measure(line: Line, rounds: int) -> Measured:
    found = line.rounds(rounds)
    figures = [line.bar.figure(each) for each in found]
    return Measured(line, median(each.ours for each in found), median(each.peer for each in found), median(figures), *interval(figures))


def in_turns(prepare: Callable[[], Pair], rounds: int) -> list[Round]:
    """After a first run of each. Ours is repeated until both take as long, so that what disturbs the machine disturbs both."""
    pair = prepare()
    pair.ours(), pair.peer()
    repeats = max(1, round(milliseconds(pair.peer) / milliseconds(pair.ours)))
    return [Round(milliseconds(pair.ours, repeats), milliseconds(pair.peer)) for _ in range(rounds)]


def milliseconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """Of one of the repeats, on average."""
    start = perf_counter()
    for _ in range(repeats):
        work()
    return (perf_counter() - start) * 1000 / repeats


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which two of the values the true median lies, whatever their distribution: how many lie below it is binomial."""
    ordered, beyond, outside = sorted(values), 0, 0.0
    while beyond < len(ordered) // 2:
        outside += 2 * math.comb(len(ordered), beyond) / 2 ** len(ordered)
        if outside > 1 - SURE:
            break
        beyond += 1
    inner = max(0, beyond - 1)
    return ordered[inner], ordered[-1 - inner]


def _short(milliseconds: float) -> str:
    return f"{milliseconds:,.1f}" if milliseconds >= 10 else f"{milliseconds:.2f}"
