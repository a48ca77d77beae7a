"""Checkpoints side by side: metrics with their differences, and settings that are not the same. Arithmetic only: no files, no database."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panollava.config import flat

ABSENT = object()
"""Where a column has no such setting; None is a setting's own value."""


@dataclass(frozen=True)
class Measure:
    """One metric of every checkpoint."""

    name: str
    values: list[float | None]
    differences: list[float | None]
    """To the base; None for the base itself, where a value is missing or not finite, and where the two cannot be compared."""
    best: int | None
    """Which one is best, where it is known what that means."""

    def is_better(self, index: int) -> bool | None:
        """Whether a difference is for the better; None where there is none, or where nobody can say."""
        difference = self.differences[index]
        return None if not difference or not lower_is_better(self.name) else difference < 0


@dataclass(frozen=True)
class Line:
    """One setting of every checkpoint, under its dotted name."""

    name: str
    values: list[Any]
    differs: bool

    def is_as_base(self, index: int, base: int) -> bool:
        return same(self.values[index], self.values[base])


def lower_is_better(name: str) -> bool:
    """Known of losses only; of other metrics nothing is claimed."""
    return name.endswith("loss")


def measures(columns: Sequence[Mapping[str, float | str]], base: int, comparable: Sequence[bool]) -> list[Measure]:
    """Metrics by name, in the order in which they first occur. `comparable` says of each column whether it can be held against the base."""
    return [_measure(name, [_number(column.get(name)) for column in columns], base, comparable) for name in _names(columns)]


def _measure(name: str, values: list[float | None], base: int, comparable: Sequence[bool]) -> Measure:
    differences = [_difference(value, values[base]) if index != base and comparable[index] else None for index, value in enumerate(values)]
    known = {index: value for index, value in enumerate(values) if value is not None and math.isfinite(value) and comparable[index]}
    best = min(known, key=lambda index: known[index]) if lower_is_better(name) and len(set(known.values())) > 1 else None
    return Measure(name, values, differences, best)


def _difference(value: float | None, base: float | None) -> float | None:
    if value is None or base is None:
        return None
    return value - base if math.isfinite(value) and math.isfinite(base) else None


def _number(value: float | str | None) -> float | None:
    """NaN and infinities are kept as their names."""
    return None if value is None else float(value)


def lines(columns: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Settings by dotted name, in the order in which they first occur. A setting that a column has not is ABSENT there."""
    settings = [dict(flat(column)) for column in columns]
    rows = [(name, [column.get(name, ABSENT) for column in settings]) for name in _names(settings)]
    return [Line(name, values, any(not same(value, values[0]) for value in values)) for name, values in rows]


def same(one: Any, other: Any) -> bool:
    """Equal, and of one kind: 1 is 1.0, but True is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _names(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column))
