"""Exponential smoothing as a chart draws it: over all points of a series, whatever part of it is shown. Pure arithmetic: no database."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """A smoothed series at some of its points."""

    values: Floats
    """NaN before the first finite point. [k]"""
    counts: Integers
    """Finite points that entered so far. [k]"""

    def split(self, lengths: Sequence[int]) -> list["Curve"]:
        """Pieces of these lengths, which add up to k."""
        cuts = np.cumsum(lengths)[:-1]
        return [Curve(*piece) for piece in zip(np.split(self.values, cuts), np.split(self.counts, cuts), strict=True)]


NOTHING = Curve(np.empty(0), np.empty(0, np.int64))


def smooth(values: Floats, ends: Integers, weight: float) -> Curve:
    """s = weight * s + (1 - weight) * y over `values`, over 1 - weight^n so that its start is not biased, as it stands after each of `ends` values.

    What is NaN or infinite neither enters nor resets it. values [n], ends [k]: ascending, 1 to n, one at least; weight in (0, 1).
    """
    finite = np.isfinite(values)
    counts = np.cumsum(finite)[ends - 1]
    sums = _decayed_sums(values[finite], counts, weight)
    unbias = -np.expm1(counts * np.log(weight))
    return Curve(np.divide(sums, unbias, out=np.full(len(ends), np.nan), where=counts > 0), counts)


def _decayed_sums(values: Floats, ends: Integers, weight: float) -> Floats:
    """s after each of `ends` values, all finite. Loops over ends, not over values. [n], [k] -> [k]"""
    added = np.diff(ends, prepend=0)  # values since the end before
    group = np.repeat(np.arange(len(ends)), added)
    age = ends[group] - 1 - np.arange(ends[-1])  # values that came later in the same group
    fresh = np.bincount(group, (1 - weight) * np.exp(age * np.log(weight)) * values[: ends[-1]], minlength=len(ends))
    sums = np.empty(len(ends))
    s = 0.0
    for place, (kept, new) in enumerate(zip((weight ** added.astype(float)).tolist(), fresh.tolist(), strict=True)):
        sums[place] = s = kept * s + new
    return sums
