"""How sure a score is: 95 % percentile intervals over questions drawn again with replacement, the same draws for both sides of a difference."""

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict

from panollava.metrics.ngrams import Floats

RESAMPLES = 10_000
"""Draws behind every interval, on the terminal and on the pages: enough for Holm's correction of thirty differences."""
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
    return spans(draws(statistic, questions, resamples=resamples, seed=seed))


def spans(drawn: Floats) -> list[Interval]:
    """The intervals of statistics that were drawn. [draws, K] -> [K]"""
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return [Interval(low=float(a), high=float(b)) for a, b in zip(low, high, strict=True)]


def p_values(drawn: Floats) -> Floats:
    """Two-sided: how often a difference comes out on the other side of 0, twice. [draws, K] -> [K], at least 2 / (draws + 1)."""
    tail = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    values: Floats = np.minimum(1.0, 2 * (tail + 1) / ((~np.isnan(drawn)).sum(axis=0) + 1))
    return values


def holm(p: Floats) -> Floats:
    """P values that hold for all of them at once: the smallest times their number, the next times one less, never falling (Holm 1979). [K]"""
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return adjusted


def draws(statistic: Statistic, questions: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The statistics of questions drawn again and again. [resamples, K]"""
    random = np.random.default_rng(seed)
    return np.concatenate([statistic(_weights(random, min(BATCH, resamples - done), questions)) for done in range(0, resamples, BATCH)])


def _weights(random: np.random.Generator, draws: int, questions: int) -> Floats:
    """How often each question comes in each draw of as many as there are. [draws, questions]"""
    drawn = random.integers(questions, size=(draws, questions)) + np.arange(draws)[:, None] * questions
    return np.bincount(drawn.ravel(), minlength=draws * questions).reshape(draws, questions).astype(np.float64)
