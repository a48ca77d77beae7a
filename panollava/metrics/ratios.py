"""Figures that are one sum over questions divided by another: means, rates, accuracies. So a resampling is two products of matrices."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from panollava.metrics.ngrams import Floats


# G questions, b draws of a resampling, K figures
@dataclass(frozen=True)
class Ratios:
    """By name, what each question adds above and below the line."""

    names: tuple[str, ...]  # K
    above: Floats  # [G, K]
    below: Floats  # [G, K]

    def __call__(self, weights: Floats) -> Floats:
        """The figures of questions that count so many times, NaN where nothing is below the line. [b, G] -> [b, K]"""
        above, below = weights @ self.above, weights @ self.below
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

    @property
    def counts(self) -> list[int]:
        """What is below the lines: for a share of questions, how many there are."""
        return [int(each) for each in self.below.sum(axis=0)]


def ratios(questions: int, parts: Mapping[str, tuple[Floats, Floats]]) -> Ratios:
    """From name -> (above [G], below [G]). A figure with nothing below the line is left out: there is nothing to say."""
    parts = {name: (above, below) for name, (above, below) in parts.items() if below.sum() > 0}
    empty = np.zeros((questions, 0))
    above = np.column_stack([empty, *(above for above, _ in parts.values())])
    below = np.column_stack([empty, *(below for _, below in parts.values())])
    return Ratios(tuple(parts), above.astype(np.float64), below.astype(np.float64))
