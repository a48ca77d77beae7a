"""Evaluations as rows of text, the same on the command line and in the browser. Markup and widths are the renderer's."""

from collections.abc import Iterable, Mapping, Sequence

from panollava.metrics.bootstrap import Interval
from panollava.metrics.captions import METRICS, CaptionScores
from panollava.metrics.cider import FEW
from panollava.metrics.compare import Compared, Comparison, Measure
from panollava.metrics.diagnosis import Diagnosis
from panollava.metrics.grounding import FigureScore
from panollava.metrics.report import Scores
from panollava.metrics.traits import TRAITS

MISSING = "-"
BLANKS = [""] * 3
"""Beside a value that has no difference."""


def rows(comparison: Comparison) -> list[list[str]]:
    """The header, then a row per score: name, questions, the base's value, and for each other evaluation value, difference, its 95 % interval,
    and its p value after Holm's correction for all differences of the table."""
    base = comparison.evaluations[comparison.base]
    others = [each for number, each in enumerate(comparison.evaluations) if number != comparison.base]
    header = ["", "n", f"{base.label} (base)", *(cell for each in others for cell in (each.label, "difference", "95 %", "p (Holm)"))]
    first, *rest = (_measures(each) for each in (base, *others))
    scores = [_score_row(name, first[name], [each[name] for each in rest]) for name in first if all(name in each for each in rest)]
    return [header, *scores, _duel_row(others), *_control_rows(base, others)]


def report_rows(scores: Scores) -> list[list[str]]:
    """One evaluation by itself: the header, then a row per score with a column per condition, and what the controls say of the model."""
    conditions = list(scores.captions)
    columns = [_scored(scores.captions[each], scores.grounding.get(each, {})) for each in conditions]
    diagnosed = [_diagnosed(scores.diagnoses[each]) if each in scores.diagnoses else {} for each in conditions]
    names = dict.fromkeys(name for column in columns for name in column)
    found = dict.fromkeys(name for column in diagnosed for name in column)
    lines = [[name, _counts([each[name][0] for each in columns if name in each]), *(_known(each, name) for each in columns)] for name in names]
    told = [[name, _counts([each[name][0] for each in diagnosed if name in each]), *(_known(each, name) for each in diagnosed)] for name in found]
    return [["", "n", *conditions], *lines, *told]


_Cells = dict[str, tuple[int, str]]
"""Name -> (questions, text)."""


def _scored(captions: CaptionScores, figures: Mapping[str, FigureScore]) -> _Cells:
    n, values = captions.groups, {name: getattr(captions, name) for name in (*METRICS, *TRAITS)}
    cells = {_titled(name, n): (n, _sure(value, captions.intervals.get(name))) for name, value in values.items() if value is not None}
    return cells | {figure: (score.n, _sure(score.accuracy, score.interval)) for figure, score in figures.items() if score.accuracy is not None}


def _diagnosed(diagnosis: Diagnosis) -> _Cells:
    agreed = {f"as to the image: {name}": (each.n, _sure(each.value, each.interval)) for name, each in diagnosis.agreement.items()}
    return agreed | {
        f"image minus this: {_titled(name, each.n)}": (each.n, _spread(each.value, each.interval)) for name, each in diagnosis.image_minus.items()
    }


def _measures(each: Compared) -> dict[str, Measure]:
    return {_titled(name, measure.n): measure for name, measure in (each.metrics | each.traits | each.grounding).items()}


def _titled(name: str, n: int) -> str:
    """CIDEr weighs words by how rare they are, which few questions do not tell."""
    return f"{name} (n < {FEW})" if name == "cider" and n < FEW else name


def _score_row(name: str, base: Measure, others: Iterable[Measure]) -> list[str]:
    return [name, str(base.n), _number(base.value), *(cell for each in others for cell in _cells(each))]


def _cells(measure: Measure) -> list[str]:
    assert measure.difference is not None  # only the base, and what not all evaluations know, has none
    difference, interval = measure.difference, measure.difference.interval
    return [_number(measure.value), _signed(difference.value), f"{_signed(interval.low)} to {_signed(interval.high)}", _number(difference.p_holm)]


def _duel_row(others: Sequence[Compared]) -> list[str]:
    duels = [each.duel for each in others if each.duel]
    questions = duels[0].win + duels[0].tie + duels[0].loss
    cells = (cell for duel in duels for cell in (f"{duel.win} / {duel.tie} / {duel.loss}", *BLANKS))
    return [f"win / tie / loss by {duels[0].by}", str(questions), "", *cells]


def _control_rows(base: Compared, others: Sequence[Compared]) -> list[list[str]]:
    """One row per control figure that any evaluation has; those without it say so."""
    everyone = [_controls(each.controls) for each in (base, *others)]
    names = dict.fromkeys(name for each in everyone for name in each)
    return [_control_row(name, everyone) for name in names]


def _control_row(name: str, everyone: Sequence[_Cells]) -> list[str]:
    """Controls may have been asked on other questions than the base's, so their n may differ."""
    base, *others = (_known(each, name) for each in everyone)
    return [name, _counts([each[name][0] for each in everyone if name in each]), base, *(cell for each in others for cell in (each, *BLANKS))]


def _controls(scores: Scores) -> _Cells:
    """`blank: cider`, `blank: colour`, and against the image `blank: same`, `image - blank: colour`."""
    flat: _Cells = {}
    for condition, each in scores.captions.items():
        flat[f"{condition}: cider"] = each.groups, _number(each.cider)
        accuracies = scores.grounding.get(condition, {}).items()
        flat |= {f"{condition}: {figure}": (score.n, _number(score.accuracy)) for figure, score in accuracies if score.accuracy is not None}
    for condition, diagnosis in scores.diagnoses.items():
        flat |= {f"{condition}: {name}": (each.n, _sure(each.value, each.interval)) for name, each in diagnosis.agreement.items()}
        flat |= {f"image - {condition}: {name}": (each.n, _spread(each.value, each.interval)) for name, each in diagnosis.headlines.items()}
    return flat


def _spread(value: float, interval: Interval) -> str:
    return f"{_signed(value)} ({_signed(interval.low)} to {_signed(interval.high)})"


def _known(cells: _Cells, name: str) -> str:
    return cells[name][1] if name in cells else MISSING


def _counts(counts: Iterable[int]) -> str:
    return " / ".join(dict.fromkeys(map(str, counts)))


def _sure(value: float, interval: Interval | None) -> str:
    """With its interval, where one was drawn."""
    return _number(value) if interval is None else f"{_number(value)} ({_number(interval.low)} to {_number(interval.high)})"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # the sum makes -0.0 positive
