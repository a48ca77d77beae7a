"""Evaluations as rows of text, the same on the command line and in the browser. Markup and widths are the renderer's."""

from collections.abc import Iterable, Sequence

from panollava.metrics.captions import METRICS
from panollava.metrics.compare import Compared, Comparison, Measure
from panollava.metrics.report import Scores

MISSING = "-"


def rows(comparison: Comparison) -> list[list[str]]:
    """The header, then a row per score: name, questions, the base's value, and for each other evaluation value, difference and its 95 % interval."""
    base = comparison.evaluations[comparison.base]
    others = [each for number, each in enumerate(comparison.evaluations) if number != comparison.base]
    header = ["", "n", f"{base.label} (base)", *(cell for each in others for cell in (each.label, "difference", "95 %"))]
    scores = [
        *(_score_row(name, base.metrics[name], [each.metrics[name] for each in others]) for name in base.metrics),
        *(_score_row(name, base.grounding[name], [each.grounding[name] for each in others]) for name in base.grounding),
    ]
    return [header, *scores, _duel_row(others), *_control_rows(base, others)]


def report_rows(scores: Scores) -> list[list[str]]:
    """One evaluation by itself: the header, then a row per score with a column per condition."""
    conditions = list(scores.captions)
    first = scores.captions[conditions[0]]
    lines = [[name, str(first.groups), *(_number(getattr(scores.captions[each], name)) for each in conditions)] for name in METRICS]
    for figure, score in scores.grounding.get(conditions[0], {}).items():
        values = [scores.grounding[each][figure].accuracy for each in conditions]
        lines.append([figure, str(score.n), *(MISSING if value is None else _number(value) for value in values)])
    return [["", "n", *conditions], *lines]


def _score_row(name: str, base: Measure, others: Iterable[Measure]) -> list[str]:
    return [name, str(base.n), _number(base.value), *(cell for each in others for cell in _cells(each))]


def _cells(measure: Measure) -> list[str]:
    assert measure.difference is not None  # only the base has none
    interval = measure.difference.interval
    return [_number(measure.value), _signed(measure.difference.value), f"{_signed(interval.low)} to {_signed(interval.high)}"]


def _duel_row(others: Sequence[Compared]) -> list[str]:
    duels = [each.duel for each in others if each.duel]
    questions = duels[0].win + duels[0].tie + duels[0].loss
    cells = (cell for duel in duels for cell in (f"{duel.win} / {duel.tie} / {duel.loss}", "", ""))
    return [f"win / tie / loss by {duels[0].by}", str(questions), "", *cells]


def _control_rows(base: Compared, others: Sequence[Compared]) -> list[list[str]]:
    """One row per control score that any evaluation has; those without it say so."""
    first, *rest = [_controls(each) for each in (base, *others)]
    names = dict.fromkeys(name for each in (first, *rest) for name in each)
    return [
        [name, _counts(name, [first, *rest]), _control(name, first), *(cell for each in rest for cell in (_control(name, each), "", ""))]
        for name in names
    ]


def _controls(each: Compared) -> dict[str, tuple[int, float]]:
    """`blank: colour` -> (n, value)"""
    flat = {}
    for condition, scores in each.controls.captions.items():
        flat[f"{condition}: cider"] = scores.groups, scores.cider
        for figure, score in each.controls.grounding.get(condition, {}).items():
            if score.accuracy is not None:
                flat[f"{condition}: {figure}"] = score.n, score.accuracy
    return flat


def _control(name: str, controls: dict[str, tuple[int, float]]) -> str:
    return _number(controls[name][1]) if name in controls else MISSING


def _counts(name: str, everyone: Sequence[dict[str, tuple[int, float]]]) -> str:
    """Controls may have been asked on other questions than the base's, so their n may differ."""
    return " / ".join(dict.fromkeys(str(each[name][0]) for each in everyone if name in each))


def _number(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # the sum makes -0.0 positive
