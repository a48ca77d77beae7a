"""Evaluations side by side on the same questions: scores, how sure their differences are, and who wins question by question.

Only answers to the image itself are compared; what the controls say is reported beside them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from panollava.errors import BadInput
from panollava.metrics import captions
from panollava.metrics.bootstrap import RESAMPLES, Interval, holm, p_values, spans
from panollava.metrics.captions import METRICS, Prediction, read_predictions
from panollava.metrics.grounding import Figures
from panollava.metrics.panel import Drawn, Panel, drawn, panel
from panollava.metrics.report import PREDICTIONS_FILE, Scores, read_report

TIE = 1e-9
"""CIDEr values this close differ by rounding only."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Difference(_Result):
    """An evaluation's value minus the base's, with its paired 95 % interval."""

    value: float
    interval: Interval
    p: float = Field(description="Two-sided, by the same draws: below 0.05 where the interval leaves 0 out.")
    p_holm: float = Field(description="After Holm's correction for all differences of the comparison: below 0.05 even as one of many.")


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
    traits: dict[str, Measure] = Field(description="What the answers are like: length_ratio, distinct_2, duplicate_rate, blank_rate, truncated_rate.")
    grounding: dict[str, Measure] = Field(description="Figure, and 'figure, seam' and 'figure, elsewhere' -> accuracy. Empty without ground truth.")
    duel: Duel | None = Field(description="Against the base; None for the base itself.")
    controls: Scores = Field(Scores(captions={}, grounding={}), description="Scores under the controls, where the evaluation asked them.")


class Comparison(_Result):
    """Evaluations on one set of questions."""

    base: int = Field(description="Which of the evaluations the differences are to.")
    questions: int
    resamples: int
    evaluations: list[Compared]
    warnings: list[str] = Field([], description="What is not known to be the same in all of them.")

    def with_controls(self, reports: Sequence[Scores | None]) -> "Comparison":
        """The same, with what the report of each evaluation says of its controls."""
        sides = [
            side.model_copy(update={"controls": report.controls}) if report else side for side, report in zip(self.evaluations, reports, strict=True)
        ]
        return self.model_copy(update={"evaluations": sides})


def compare(
    evaluations: Sequence[tuple[str, Sequence[Prediction]]],
    base: int = 0,
    figures: Figures | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Set evaluations, each a label and its predictions, against the one at `base`. Grounding is compared where the dataset's figures are given.

    Raises BadInput unless all answer the same questions about the same images, against the same references and ground truth.
    """
    if len(evaluations) < 2:
        raise BadInput(f"A comparison needs two evaluations or more; this is {len(evaluations)}.")
    if not 0 <= base < len(evaluations):
        raise BadInput(f"base is {base}, but the evaluations are numbered 0 to {len(evaluations) - 1}.")
    answers = aligned(evaluations, base)
    sides = [drawn(panel(theirs, figures), resamples, seed) for theirs in answers]
    names = [name for name in sides[base].panel.names if all(name in side.panel.names for side in sides)]
    differences = _differences(sides, base, names)
    compared = [
        _compared(label, side, each, None if number == base else _duel(side.panel, sides[base].panel))
        for number, ((label, _), side, each) in enumerate(zip(evaluations, sides, differences, strict=True))
    ]
    warnings = _unsure([label for label, _ in evaluations], answers)
    return Comparison(base=base, questions=len(answers[base]), resamples=resamples, evaluations=compared, warnings=warnings)


def aligned(evaluations: Sequence[tuple[str, Sequence[Prediction]]], base: int = 0) -> list[list[Prediction]]:
    """Each evaluation's answers to the image, all in the order of the questions of the one at `base`.

    Raises BadInput unless all answer the same questions about the same images, against the same references and ground truth.
    """
    answers = [_answers(label, predictions) for label, predictions in evaluations]
    for (label, _), theirs in zip(evaluations, answers, strict=True):
        _check_same_questions(evaluations[base][0], answers[base], label, theirs)
    return [[theirs[question] for question in answers[base]] for theirs in answers]


def compare_directories(directories: Sequence[Path], base: int = 0) -> Comparison:
    """Compare what `evaluate` wrote, labelled by directory, with what each report says of its controls. Grounding is judged by the vocabulary
    in the base's report. Raises BadInput."""
    evaluations = [(str(directory), read_predictions(directory / PREDICTIONS_FILE)) for directory in directories]
    reports = [read_report(directory) for directory in directories]
    figures = reports[base].figures if base in range(len(directories)) else None
    return compare(evaluations, base, figures).with_controls(reports)


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
    if unlike := [question for question in base if _is_another_image(base[question], theirs[question])]:
        url, query = unlike[0]
        raise BadInput(
            f"{label} and {base_label} were asked of other images in {len(unlike)} questions: the file of {url}, for example, has been changed"
            " between the two. Evaluate the older one again."
        )


def _is_another_image(one: Prediction, other: Prediction) -> bool:
    """As far as both say; older evaluations do not."""
    return one.image_sha256 is not None and other.image_sha256 is not None and one.image_sha256 != other.image_sha256


def _unsure(labels: Sequence[str], answers: Sequence[Sequence[Prediction]]) -> list[str]:
    """What to say of evaluations that did not note their images, beside others that did."""
    silent = [label for label, theirs in zip(labels, answers, strict=True) if any(each.image_sha256 is None for each in theirs)]
    text = "{label} does not say of which image files its answers are; only addresses, questions and references are known to be the same."
    return [text.format(label=label) for label in silent] if len(silent) < len(labels) else []


def _truth(each: Prediction) -> object:
    return sorted(each.references), each.kind, each.expect, each.seam


def _differences(sides: Sequence[Drawn], base: int, names: Sequence[str]) -> list[dict[str, Difference]]:
    """Of every side to the base, by figure; none for the base itself. All of them together are the family of Holm's correction."""
    pairs = [side.minus(sides[base], names) for side in sides]
    p = np.stack([p_values(drawn) for _, drawn in pairs])  # [E, K]
    others = [number for number in range(len(sides)) if number != base]
    p_holm = np.ones_like(p)
    p_holm[others] = holm(p[others].ravel()).reshape(len(others), -1)
    return [
        {} if number == base else _named(names, values.tolist(), spans(drawn), p[number].tolist(), p_holm[number].tolist())
        for number, (values, drawn) in enumerate(pairs)
    ]


def _named(names: Sequence[str], values: list[float], intervals: list[Interval], p: list[float], p_holm: list[float]) -> dict[str, Difference]:
    columns = zip(names, values, intervals, p, p_holm, strict=True)
    return {name: Difference(value=value, interval=interval, p=one, p_holm=many) for name, value, interval, one, many in columns}


def _compared(label: str, side: Drawn, differences: Mapping[str, Difference], duel: Duel | None) -> Compared:
    columns = zip(side.panel.names, side.panel.values.tolist(), side.panel.counts, side.intervals.values(), strict=True)
    measures = {name: Measure(value=value, n=n, interval=interval, difference=differences.get(name)) for name, value, n, interval in columns}
    groups = METRICS, side.panel.traits, side.panel.grounding.names
    metrics, traits, grounded = ({name: measures[name] for name in names} for names in groups)
    return Compared(label=label, metrics=metrics, traits=traits, grounding=grounded, duel=duel)


def _duel(side: Panel, base: Panel) -> Duel:
    """Where there is ground truth the answer with every figure right wins; where there is none, the higher CIDEr."""
    grounded = ~np.isnan(side.all_right)
    ahead = (side.all_right - base.all_right)[grounded] if grounded.any() else side.samples.cider - base.samples.cider
    win, loss = int((ahead > TIE).sum()), int((ahead < -TIE).sum())
    return Duel(by="grounding" if grounded.any() else "cider", win=win, tie=len(ahead) - win - loss, loss=loss)
