"""The figures of a comparison as the page's table has them: text, what is best, and where a forest plot draws its marks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.i18n import _
from panollava.metrics.compare import Comparison, Difference, Measure
from panollava.metrics.report import Report

CAPTIONS = {"cider": "CIDEr", "rouge_l": "ROUGE-L", "bleu_4": "BLEU-4", "bleu_3": "BLEU-3", "bleu_2": "BLEU-2", "bleu_1": "BLEU-1"}
MIDDLE, REACH = 52.0, 48.0
"""Of a forest plot 104 wide: where 0 is, and how far the longest interval of a row reaches."""


@dataclass(frozen=True)
class Delta:
    """A difference to the base. It is `sure` when its 95 % interval does not hold 0."""

    text: str
    sure: bool
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


def caption_rows(comparison: Comparison, reports: Sequence[Report | None]) -> list[Row]:
    """Caption scores, and the share of answers without a word."""
    rows = [_row(label, [each.metrics[name] for each in comparison.evaluations]) for name, label in CAPTIONS.items()]
    return [*rows, _blank_row(reports)] if all(reports) else rows


def grounding_rows(comparison: Comparison, chance: Mapping[str, float]) -> list[Row]:
    """Accuracies against the ground truth, with what the best answers without looking score. Empty where there is none."""
    base = comparison.evaluations[comparison.base].grounding
    return [_row(_spoken(name), [each.grounding[name] for each in comparison.evaluations], _note(name, base[name].n, chance)) for name in base]


def control_rows(reports: Sequence[Report | None]) -> list[Row]:
    """What each evaluation scores without the right image: `blank: CIDEr`, `rolled: colour`. A dash where it was not asked."""
    columns = [_controls(report) for report in reports]
    names = dict.fromkeys(name for column in columns for name in column)
    return [Row(name, [Cell(column.get(name, "–")) for column in columns]) for name in names]


def _row(name: str, measures: Sequence[Measure], note: str = "") -> Row:
    best = max(each.value for each in measures)
    ends = [abs(end) for each in measures if each.difference for end in (each.difference.interval.low, each.difference.interval.high)]
    reach = max([*ends, 1e-9])
    return Row(name, [_cell(each, best, reach) for each in measures], note)


def _cell(measure: Measure, best: float, reach: float) -> Cell:
    spread = (measure.interval.high - measure.interval.low) / 2
    delta = _delta(measure.difference, reach) if measure.difference else None
    return Cell(_number(measure.value), _number(spread), measure.value == best, delta)


def _delta(difference: Difference, reach: float) -> Delta:
    value, low, high = difference.value, difference.interval.low, difference.interval.high
    at, start, end = (round(MIDDLE + REACH * max(-1.0, min(1.0, each / reach)), 2) for each in (value, low, high))
    interval = _("{low} to {high}").format(low=signed(low), high=signed(high))
    return Delta(signed(value), not low <= 0 <= high, interval, at, start, end)


def _blank_row(reports: Sequence[Report | None]) -> Row:
    rates = [report.captions["image"].blank_rate for report in reports if report]
    return Row(_("blank answers"), [Cell(_number(rate), best=rate == min(rates)) for rate in rates], falling=True)


def _note(name: str, n: int, chance: Mapping[str, float]) -> str:
    if name not in chance:
        return _("n {n}").format(n=f"{n:,}")
    return _("n {n}, chance {chance}").format(n=f"{n:,}", chance=_number(chance[name]))


def _controls(report: Report | None) -> dict[str, str]:
    found = {}
    for condition, scores in report.captions.items() if report else ():
        if condition == "image" or report is None:
            continue
        found[f"{condition}: CIDEr"] = _number(scores.cider)
        for figure, score in report.grounding.get(condition, {}).items():
            if score.accuracy is not None:
                found[f"{condition}: {figure}"] = _number(score.accuracy)
    return found


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
