"""How sure a score is: 95 % percentile intervals over questions drawn again with replacement, the same draws for both sides of a difference."""

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict

from panollava.metrics.ngrams import Floats

RESAMPLES = 1000
BATCH = 100
"""Draws made at once: 100 x 5,000 questions are 4 MB."""

# G questions, b draws of one batch, K statistics
Statistic = Callable[[Floats], Floats]
"""Weights [b, G], how often each question was drawn -> values [b, K]; NaN where a draw holds nothing to measure."""


class Interval(BaseModel):
    """Where 95 % of the draws lie: their 2.5 and 97.5 % percentiles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float


def intervals(statistic: Statistic, questions: int, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """One interval per statistic; the same for the same seed. [K]"""
    low, high = np.nanpercentile(_draws(statistic, questions, resamples, seed), [2.5, 97.5], axis=0)
    return [Interval(low=float(a), high=float(b)) for a, b in zip(low, high, strict=True)]


def paired(ours: Statistic, base: Statistic, questions: int, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """Intervals of ours minus base, both measured on the same drawn questions. [K]"""
    return intervals(lambda weights: ours(weights) - base(weights), questions, resamples=resamples, seed=seed)


def _draws(statistic: Statistic, questions: int, resamples: int, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    return np.concatenate([statistic(_weights(random, min(BATCH, resamples - done), questions)) for done in range(0, resamples, BATCH)])


def _weights(random: np.random.Generator, draws: int, questions: int) -> Floats:
    """How often each question comes in each draw of as many as there are. [draws, questions]"""
    drawn = random.integers(questions, size=(draws, questions)) + np.arange(draws)[:, None] * questions
    return np.bincount(drawn.ravel(), minlength=draws * questions).reshape(draws, questions).astype(np.float64)
