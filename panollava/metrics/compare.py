"""Evaluations side by side on the same questions: scores, how sure their differences are, and who wins question by question.

Only answers to the image itself are compared; the controls (blank, shuffled, rolled, untrained) are reported beside them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from panollava.errors import BadInput
from panollava.metrics import captions, grounding
from panollava.metrics.bootstrap import RESAMPLES, Interval, intervals, paired
from panollava.metrics.captions import METRICS, Prediction, Samples, read_predictions
from panollava.metrics.grounding import Figures, Marks
from panollava.metrics.ngrams import Bools, Floats
from panollava.metrics.report import PREDICTIONS_FILE, Scores, read_report, scores

SEAM, ELSEWHERE = "seam", "elsewhere"
TIE = 1e-9
"""CIDEr values this close differ by rounding only."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Difference(_Result):
    """An evaluation's value minus the base's, with its paired 95 % interval."""

    value: float
    interval: Interval


class Measure(_Result):
    """One score of one evaluation."""

    value: float
    n: int = Field(description="Questions it is taken over.")
    interval: Interval
    difference: Difference | None = Field(description="To the base; None for the base itself.")


class Duel(_Result):
    """Questions on which an evaluation did better than the base, as well, worse."""

    by: Literal["cider", "grounding"] = Field(description="What decides: CIDEr, or every figure right where there is ground truth.")
    win: int
    tie: int
    loss: int


class Compared(_Result):
    """One evaluation among those compared."""

    label: str
    metrics: dict[str, Measure]
    grounding: dict[str, Measure] = Field(description="Figure, and 'figure, seam' and 'figure, elsewhere' -> accuracy. Empty without ground truth.")
    duel: Duel | None = Field(description="Against the base; None for the base itself.")
    controls: Scores = Field(description="Scores under the control conditions, where the evaluation asked them.")


class Comparison(_Result):
    """Evaluations on one set of questions."""

    base: int = Field(description="Which of the evaluations the differences are to.")
    questions: int
    resamples: int
    evaluations: list[Compared]


# G questions, b draws, F figures and their halves on and off the seam
@dataclass(frozen=True)
class _Side:
    """One evaluation's answers to the image, in the base's order of questions."""

    label: str
    samples: Samples
    names: list[str]  # F
    asked: Floats  # [G, F] 0 or 1
    right: Floats  # [G, F] 0 or 1
    controls: Scores

    def statistic(self, weights: Floats) -> Floats:
        """METRICS, then the figures' accuracies. [b, G] -> [b, 6 + F]"""
        right, asked = weights @ self.right, weights @ self.asked
        accuracy = np.divide(right, asked, out=np.full_like(right, np.nan), where=asked > 0)
        return np.concatenate([self.samples.metrics(weights), accuracy], axis=1)


def compare(
    evaluations: Sequence[tuple[str, Sequence[Prediction]]],
    base: int = 0,
    figures: Figures | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Set evaluations, each a label and its predictions, against the one at `base`. Grounding is compared where the dataset's figures are given.

    Raises BadInput unless all answer the same questions, against the same references and ground truth.
    """
    if len(evaluations) < 2:
        raise BadInput(f"A comparison needs two evaluations or more; this is {len(evaluations)}.")
    if not 0 <= base < len(evaluations):
        raise BadInput(f"base is {base}, but the evaluations are numbered 0 to {len(evaluations) - 1}.")
    answers = aligned(evaluations, base)
    sides = [_side(label, theirs, predictions, figures or {}) for (label, predictions), theirs in zip(evaluations, answers, strict=True)]
    return Comparison(
        base=base,
        questions=len(answers[base]),
        resamples=resamples,
        evaluations=[_compared(side, sides[base], resamples, seed) for side in sides],
    )


def aligned(evaluations: Sequence[tuple[str, Sequence[Prediction]]], base: int = 0) -> list[list[Prediction]]:
    """Each evaluation's answers to the image, all in the order of the questions of the one at `base`.

    Raises BadInput unless all answer the same questions, against the same references and ground truth.
    """
    answers = [_answers(label, predictions) for label, predictions in evaluations]
    for (label, _), theirs in zip(evaluations, answers, strict=True):
        _check_same_questions(evaluations[base][0], answers[base], label, theirs)
    return [[theirs[question] for question in answers[base]] for theirs in answers]


def compare_directories(directories: Sequence[Path], base: int = 0) -> Comparison:
    """Compare what `evaluate` wrote, labelled by directory. Grounding is judged by the vocabulary in the base's report. Raises BadInput."""
    evaluations = [(str(directory), read_predictions(directory / PREDICTIONS_FILE)) for directory in directories]
    figures = read_report(directories[base]).figures if base in range(len(directories)) else None
    return compare(evaluations, base, figures)


_Question = tuple[str, str]


def _answers(label: str, predictions: Iterable[Prediction]) -> dict[_Question, Prediction]:
    to_the_image = [each for each in predictions if each.condition == "image"]
    if not to_the_image:
        raise BadInput(f"{label} has no answers to the image itself, so there is nothing to compare.")
    captions.check_distinct(to_the_image)
    return {(each.url, each.query): each for each in to_the_image}


def _check_same_questions(base_label: str, base: dict[_Question, Prediction], label: str, theirs: dict[_Question, Prediction]) -> None:
    if unlike := sorted(base.keys() ^ theirs.keys()):
        url, query = unlike[0]
        owner = base_label if unlike[0] in base else label
        raise BadInput(f"{label} and {base_label} differ in {len(unlike)} questions; for example, only {owner} answers {query!r} of {url}.")
    if unlike := [question for question in base if _truth(base[question]) != _truth(theirs[question])]:
        url, query = unlike[0]
        raise BadInput(f"{label} and {base_label} have other references or ground truth for {len(unlike)} questions; for example {query!r} of {url}.")


def _truth(each: Prediction) -> object:
    return sorted(each.references), each.kind, each.expect, each.seam


def _side(label: str, answers: Sequence[Prediction], predictions: Iterable[Prediction], figures: Figures) -> _Side:
    halves = _halves(grounding.marks(answers, figures)) if figures else {}
    empty = np.zeros((len(answers), 0))
    return _Side(
        label=label,
        samples=captions.samples(answers),
        names=list(halves),
        asked=np.column_stack([empty, *(asked for asked, _ in halves.values())]),
        right=np.column_stack([empty, *(right for _, right in halves.values())]),
        controls=scores([each for each in predictions if each.condition != "image"], figures),
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


def _compared(side: _Side, base: _Side, resamples: int, seed: int) -> Compared:
    questions = len(side.samples.cider)
    everything = np.ones((1, questions))
    values = side.statistic(everything)[0]
    differences = values - base.statistic(everything)[0]
    own = intervals(side.statistic, questions, resamples=resamples, seed=seed)
    ours_minus_base = paired(side.statistic, base.statistic, questions, resamples=resamples, seed=seed)
    asked = [questions] * len(METRICS) + side.asked.sum(axis=0).astype(int).tolist()
    measures = [
        Measure(value=value, n=n, interval=interval, difference=None if side is base else Difference(value=difference, interval=sure))
        for value, n, interval, difference, sure in zip(values.tolist(), asked, own, differences.tolist(), ours_minus_base, strict=True)
    ]
    named = dict(zip([*METRICS, *side.names], measures, strict=True))
    return Compared(
        label=side.label,
        metrics={name: named.pop(name) for name in METRICS},
        grounding=named,
        duel=None if side is base else _duel(side, base),
        controls=side.controls,
    )


def _duel(side: _Side, base: _Side) -> Duel:
    grounded = side.asked.any(axis=1)
    if grounded.any():
        ours, theirs = ((each.right == each.asked).all(axis=1)[grounded].astype(np.float64) for each in (side, base))
    else:
        ours, theirs = side.samples.cider, base.samples.cider
    ahead = ours - theirs
    win, loss = int((ahead > TIE).sum()), int((ahead < -TIE).sum())
    return Duel(by="grounding" if grounded.any() else "cider", win=win, tie=len(ahead) - win - loss, loss=loss)
