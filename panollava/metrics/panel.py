"""Every figure of one set of answers, by name: caption scores, what the answers are like, accuracies against the ground truth.

Questions can be weighed anew without a word being read again, so an interval, or the difference of two panels, is arithmetic on arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panollava.metrics import captions, grounding
from panollava.metrics.bootstrap import RESAMPLES, Interval, draws, spans
from panollava.metrics.captions import METRICS, Prediction, Samples
from panollava.metrics.grounding import Figures, Marks
from panollava.metrics.ngrams import Bools, Floats
from panollava.metrics.ratios import Ratios, ratios

SEAM, ELSEWHERE = "seam", "elsewhere"


# G questions, b draws, K figures in all
@dataclass(frozen=True)
class Panel:
    """Answers of one condition, in a given order of questions."""

    samples: Samples
    grounding: Ratios
    """Figure, and 'figure, seam' and 'figure, elsewhere' -> accuracy. None without ground truth."""
    all_right: Floats  # [G] 1 where every figure asked for is right, NaN where none is asked for

    @property
    def questions(self) -> int:
        return len(self.samples.cider)

    @property
    def traits(self) -> tuple[str, ...]:
        return self.samples.traits.names

    @property
    def names(self) -> tuple[str, ...]:
        """What `statistic` gives, in its order: METRICS, traits, accuracies."""
        return (*METRICS, *self.traits, *self.grounding.names)

    @property
    def counts(self) -> list[int]:
        """How many questions each figure is taken over."""
        return [self.questions] * (len(METRICS) + len(self.traits)) + self.grounding.counts

    @property
    def values(self) -> Floats:
        """[K]"""
        everything: Floats = self.statistic(np.ones((1, self.questions)))[0]
        return everything

    def statistic(self, weights: Floats) -> Floats:
        """All figures of questions that count so many times. [b, G] -> [b, K]"""
        return np.concatenate([self.samples.metrics(weights), self.samples.traits(weights), self.grounding(weights)], axis=1)

    def places(self, names: Sequence[str]) -> list[int]:
        """Where figures stand among all."""
        return [self.names.index(name) for name in names]


@dataclass(frozen=True)
class Drawn:
    """A panel with its figures on questions drawn again and again. Two of the same number of questions have the same draws, so they can be paired."""

    panel: Panel
    drawn: Floats  # [draws, K]

    @property
    def intervals(self) -> dict[str, Interval]:
        return dict(zip(self.panel.names, spans(self.drawn), strict=True))

    def minus(self, other: "Drawn", names: Sequence[str]) -> tuple[Floats, Floats]:
        """Differences of the figures named: their values [names], and what they are on each draw [draws, names]."""
        ours, theirs = self.panel.places(names), other.panel.places(names)
        return self.panel.values[ours] - other.panel.values[theirs], self.drawn[:, ours] - other.drawn[:, theirs]


def drawn(panel: Panel, resamples: int = RESAMPLES, seed: int = 0) -> Drawn:
    return Drawn(panel, draws(panel.statistic, panel.questions, resamples=resamples, seed=seed))


def panel(answers: Sequence[Prediction], figures: Figures | None = None) -> Panel:
    """Score answers of one condition. Raises BadInput as `captions.samples` and `grounding.marks` do."""
    samples = captions.samples(answers)
    marks = grounding.marks(answers, figures) if figures else None
    halves = _halves(marks) if marks else {}
    all_right = np.where(marks.asked.any(axis=1), (marks.right == marks.asked).all(axis=1), np.nan) if marks else np.full(len(answers), np.nan)
    return Panel(
        samples,
        ratios(len(answers), {name: (right.astype(np.float64), asked.astype(np.float64)) for name, (asked, right) in halves.items()}),
        all_right,
    )


def _halves(marks: Marks) -> dict[str, tuple[Bools, Bools]]:
    """Each figure that is asked for, and where some of its objects lie on the seam and some do not, also both halves -> (asked [G], right [G])."""
    halves = {}
    for column, figure in enumerate(marks.figures):
        asked, right = marks.asked[:, column], marks.right[:, column]
        seam, elsewhere = asked & marks.seam, asked & ~marks.seam
        if asked.any():
            halves[figure] = asked, right
        if seam.any() and elsewhere.any():
            halves |= {f"{figure}, {SEAM}": (seam, right & seam), f"{figure}, {ELSEWHERE}": (elsewhere, right & elsewhere)}
    return halves
