"""What a line of the benchmark is, and how it is measured. Knows nothing of what is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Pair:
    """Ours and the peer's way to the same result, ready to run."""

    ours: Callable[[], Any]
    peer: Callable[[], Any]


@dataclass(frozen=True)
class Line:
    """A claim: what is done, what it is held against, and how many times as fast ours is at least."""

    what: str
    against: str
    at_least: float
    prepare: Callable[[], Pair]


@dataclass(frozen=True)
class Measured:
    """Medians, milliseconds. `ratio` is the median of the rounds' own ratios, so that a machine which is busy for a while cancels out."""

    line: Line
    ours: float
    peer: float
    ratio: float

    @property
    def holds(self) -> bool:
        return self.ratio >= self.line.at_least

    def __str__(self) -> str:
        """As a row of the table."""
        verdict = "" if self.holds else " **missed**"
        return (
            f"| {self.line.what} | {self.line.against} | {self.peer:,.1f} | {self.ours:,.1f} | {self.ratio:.1f} | {self.line.at_least:g}{verdict} |"
        )


HEAD = "| what | against | peer, ms | ours, ms | times as fast | at least |\n|---|---|---|---|---|---|"
LINES: list[Line] = []


def line(what: str, *, against: str, at_least: float) -> Callable[[Callable[[], Pair]], Callable[[], Pair]]:
    """Register a function that prepares a pair as a line of the benchmark."""

    def register(prepare: Callable[[], Pair]) -> Callable[[], Pair]:
        LINES.append(Line(what, against, at_least, prepare))
        return prepare

    return register


def measure(line: Line, rounds: int) -> Measured:
    """In turns, after a first run of each. Ours is repeated until both take as long, so that what disturbs the machine disturbs both."""
    pair = line.prepare()
    pair.ours(), pair.peer()
    repeats = max(1, round(_milliseconds(pair.peer) / _milliseconds(pair.ours)))
    times = [(_milliseconds(pair.ours, repeats), _milliseconds(pair.peer)) for _ in range(rounds)]
    ours, peer = zip(*times, strict=True)
    return Measured(line, median(ours), median(peer), median(theirs / mine for mine, theirs in times))


def _milliseconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """Of one of the repeats, on average."""
    start = perf_counter()
    for _ in range(repeats):
        work()
    return (perf_counter() - start) * 1000 / repeats
