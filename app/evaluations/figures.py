"""The figures of a comparison as the page's table has them: text, what is best, and where a forest plot draws its marks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.i18n import _
from panollava.metrics.bootstrap import Interval
from panollava.metrics.cider import FEW
from panollava.metrics.compare import Comparison, Difference, Measure
from panollava.metrics.report import Report

CAPTIONS = {
    "cider": "CIDEr", "meteor_exact_stem": _("METEOR (exact, stem)"), "rouge_l": "ROUGE-L",
    "bleu_4": "BLEU-4", "bleu_3": "BLEU-3", "bleu_2": "BLEU-2", "bleu_1": "BLEU-1",
}  # fmt: skip
TRAITS = {
    "length_ratio": _("length to references"),
    "distinct_2": _("distinct word pairs"),
    "duplicate_rate": _("repeated answers"),
    "blank_rate": _("blank answers"),
    "truncated_rate": _("cut-off answers"),
}
FALLING = ("duplicate_rate", "blank_rate", "truncated_rate")
"""Lower is better. Of the other traits neither end is good."""
AGREEMENT = {"same": _("same answer"), "likeness": _("likeness of the answers")}
SURE = 0.05
MIDDLE, REACH = 52.0, 48.0
"""Of a forest plot 104 wide: where 0 is, and how far the longest interval of a row reaches."""


@dataclass(frozen=True)
class Delta:
    """A difference to the base. It is `sure` when its 95 % interval does not hold 0."""

    text: str
    sure: bool
    holds: bool
    """It is sure even as one of all differences of the comparison, after Holm's correction."""
    interval: str
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One evaluation's value. `spread` is half its own interval; `delta` is None for the base."""

    text: str
    spread: str | None = None
    best: bool = False
    delta: Delta | None = None


@dataclass(frozen=True)
class Row:
    """One figure of every evaluation."""

    name: str
    cells: list[Cell]
    note: str = ""
    falling: bool = False
    """Lower is better."""


def caption_rows(comparison: Comparison) -> list[Row]:
    """Caption scores; CIDEr says so where the questions are too few for it."""
    few = _("n {n}: too few to mean much").format(n=comparison.questions) if comparison.questions < FEW else ""
    return [_row(label, [each.metrics[name] for each in comparison.evaluations], few if name == "cider" else "") for name, label in CAPTIONS.items()]


def trait_rows(comparison: Comparison) -> list[Row]:
    """What the answers are like, where every evaluation knows it."""
    return [
        _row(label, [each.traits[name] for each in comparison.evaluations], best=min if name in FALLING else None)
        for name, label in TRAITS.items()
        if all(name in each.traits for each in comparison.evaluations)
    ]


def grounding_rows(comparison: Comparison, chance: Mapping[str, float]) -> list[Row]:
    """Accuracies against the ground truth, with what the best answers without looking score. Empty where there is none."""
    base = comparison.evaluations[comparison.base].grounding
    return [_row(_spoken(name), [each.grounding[name] for each in comparison.evaluations], _note(name, base[name].n, chance)) for name in base]


def control_rows(reports: Sequence[Report | None]) -> list[Row]:
    """What each evaluation scores under its controls (`blank: CIDEr`), whether its answers stay what they were (`rolled: same answer`), and what
    the right image is worth (`image − blank: CIDEr`). A dash where it was not asked."""
    columns = [_controls(report) | _diagnosed(report) for report in reports]
    names = dict.fromkeys(name for column in columns for name in column)
    return [Row(name, [column.get(name, Cell("–")) for column in columns]) for name in names]


def diagnosis_rows(report: Report | str | None) -> list[Row]:
    """What the controls of one evaluation say of the model, without what is scored under each; none where there are no figures."""
    return [Row(name, [cell]) for name, cell in _diagnosed(report).items()] if isinstance(report, Report) else []


def _row(name: str, measures: Sequence[Measure], note: str = "", best: Callable[[list[float]], float] | None = max) -> Row:
    """`best` chooses among the values; None where neither end is good."""
    chosen = best([each.value for each in measures]) if best else None
    ends = [abs(end) for each in measures if each.difference for end in (each.difference.interval.low, each.difference.interval.high)]
    reach = max([*ends, 1e-9])
    return Row(name, [_cell(each, chosen, reach) for each in measures], note, falling=best is min)


def _cell(measure: Measure, best: float | None, reach: float) -> Cell:
    delta = _delta(measure.difference, reach) if measure.difference else None
    return Cell(_number(measure.value), _half(measure.interval), measure.value == best, delta)


def _delta(difference: Difference, reach: float) -> Delta:
    value, low, high = difference.value, difference.interval.low, difference.interval.high
    at, start, end = (round(MIDDLE + REACH * max(-1.0, min(1.0, each / reach)), 2) for each in (value, low, high))
    interval = _("{low} to {high}").format(low=signed(low), high=signed(high))
    return Delta(signed(value), not low <= 0 <= high, difference.p_holm < SURE, interval, at, start, end)


def _note(name: str, n: int, chance: Mapping[str, float]) -> str:
    if name not in chance:
        return _("n {n}").format(n=f"{n:,}")
    return _("n {n}, chance {chance}").format(n=f"{n:,}", chance=_number(chance[name]))


def _controls(report: Report | None) -> dict[str, Cell]:
    found = {}
    for condition, scores in report.captions.items() if report else ():
        if condition == "image" or report is None:
            continue
        found[f"{condition}: CIDEr"] = Cell(_number(scores.cider))
        for figure, score in report.grounding.get(condition, {}).items():
            if score.accuracy is not None:
                found[f"{condition}: {figure}"] = Cell(_number(score.accuracy))
    return found


def _diagnosed(report: Report | None) -> dict[str, Cell]:
    found = {}
    for condition, diagnosis in report.diagnoses.items() if report else ():
        for name, each in diagnosis.agreement.items():
            what, *part = name.split(", ")
            found[": ".join([condition, ", ".join([AGREEMENT[what], *part])])] = Cell(_number(each.value), _half(each.interval))
        for name, each in diagnosis.headlines.items():
            found[f"image − {condition}: {CAPTIONS.get(name) or _spoken(name)}"] = Cell(signed(each.value), _half(each.interval))
    return found


def _half(interval: Interval) -> str:
    return _number((interval.high - interval.low) / 2)


def _spoken(name: str) -> str:
    """`colour, seam` -> `colour, on the seam`"""
    return name.replace(", seam", _(", on the seam")).replace(", elsewhere", _(", elsewhere"))


def _number(value: float) -> str:
    return f"{value:.3f}"


def signed(value: float, digits: int = 3) -> str:
    """+0.060, −0.012, 0.000; a true minus sign."""
    text = f"{abs(value):.{digits}f}"
    if not text.strip("0."):
        return text
    return f"+{text}" if value > 0 else f"−{text}"
