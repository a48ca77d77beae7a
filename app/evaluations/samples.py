"""A comparison question by question: every evaluation's answer, what it scores, and which questions to look at first.

Files of predictions are read and scored once, and kept while they are among the last few asked for. Knows no database and no page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.recent import Recent
from panollava.errors import BadInput
from panollava.metrics import captions, compare, grounding
from panollava.metrics.captions import Prediction
from panollava.metrics.compare import TIE, Comparison
from panollava.metrics.grounding import Figures, Marks

# E evaluations, G questions
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


class Metric(StrEnum):
    """What a single question is judged by. Grounding is 1 where every figure asked for is right, and NaN where none is."""

    cider = "cider"
    rouge_l = "rouge_l"
    grounding = "grounding"


class Filter(StrEnum):
    """Which questions are listed, each kind with the most telling first; a is the base, b the evaluation beside it."""

    b_gt_a = "b_gt_a"
    a_gt_b = "a_gt_b"
    both_low = "both_low"
    disagree = "disagree"
    all = "all"


class Source(NamedTuple):
    """A file of predictions as it is now."""

    path: Path
    changed: int
    size: int


@dataclass(frozen=True)
class Sheet:
    """One evaluation's answers to the image, and what each scores by itself."""

    answers: list[Prediction]
    cider: Floats
    rouge_l: Floats
    urls: frozenset[str]


@dataclass(frozen=True)
class Board:
    """Evaluations on the same questions, in the same order."""

    answers: list[list[Prediction]]  # [E][G]
    scores: dict[Metric, Floats]  # each [E, G]
    marks: list[Marks]
    """Per evaluation; none where the questions have no ground truth."""

    @property
    def questions(self) -> int:
        return len(self.answers[0])


_sheets: Recent[Source, Sheet] = Recent(8)
_boards: Recent[Any, Board] = Recent(4)
_comparisons: Recent[Any, Comparison] = Recent(16)


@dataclass(frozen=True)
class Compared:
    """The evaluations of a comparison: labels with their predictions.jsonl, and the vocabulary of the ground truth they are judged by."""

    evaluations: tuple[tuple[str, Path], ...]
    base: int
    figures: Figures

    @property
    def key(self) -> Any:
        """The same for as long as the answer is."""
        words = tuple((figure, tuple(phrases)) for figure, phrases in self.figures.items())
        return tuple((label, source(path)) for label, path in self.evaluations), self.base, words

    def comparison(self) -> Comparison:
        """Of the answers to the image, without controls. Raises BadInput for evaluations that cannot be compared."""
        return _comparisons.get(self.key, self._compare)

    def board(self) -> Board:
        """Questions in the order of the first evaluation. Raises BadInput as `comparison` does, but takes one evaluation too."""
        return _boards.get(self.key, self._lay_out)

    @property
    def is_at_hand(self) -> bool:
        """Whether the comparison needs no work any more."""
        return _comparisons.find(self.key) is not None

    def _compare(self) -> Comparison:
        answers = [(label, sheet(path).answers) for label, path in self.evaluations]
        return compare.compare(answers, self.base, self.figures)

    def _lay_out(self) -> Board:
        sheets = [sheet(path) for _, path in self.evaluations]
        labelled = [(label, each.answers) for (label, _), each in zip(self.evaluations, sheets, strict=True)]
        answers = compare.aligned(labelled)
        order = [_order(each, answers[0]) for each in sheets]
        marks = [grounding.marks(each, self.figures) for each in answers] if self.figures else []
        scores = {
            Metric.cider: np.stack([each.cider[places] for each, places in zip(sheets, order, strict=True)]),
            Metric.rouge_l: np.stack([each.rouge_l[places] for each, places in zip(sheets, order, strict=True)]),
        }
        if marks and marks[0].asked.any():
            scores[Metric.grounding] = np.stack([_right(each) for each in marks])
        return Board(answers, scores, marks if Metric.grounding in scores else [])


def source(path: Path) -> Source:
    """Raises BadInput for a file that is not there any more."""
    try:
        now = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from None
    return Source(path, now.st_mtime_ns, now.st_size)


def sheet(path: Path) -> Sheet:
    """Raises BadInput for a file that holds no answers to the image, or one of them twice."""
    return _sheets.get(source(path), lambda: _read(path))


def _read(path: Path) -> Sheet:
    answers = [each for each in captions.read_predictions(path) if each.condition == "image"]
    scores = captions.samples(answers)
    return Sheet(answers, scores.cider, scores.rouge_l, frozenset(each.url for each in answers))


def _order(sheet: Sheet, questions: Sequence[Prediction]) -> Ints:
    """Where each question stands on a sheet. [G]"""
    places = {(each.url, each.query): place for place, each in enumerate(sheet.answers)}
    return np.array([places[each.url, each.query] for each in questions])


def _right(marks: Marks) -> Floats:
    """[G]"""
    return np.where(marks.asked.any(axis=1), (marks.right == marks.asked).all(axis=1), np.nan).astype(np.float64)


def differences(board: Board, metric: Metric, base: int, other: int | None) -> Floats:
    """What the other evaluation scores more than the base; with no other, what the base scores. [G]"""
    scores = board.scores[metric]
    found: Floats = scores[base] if other is None else scores[other] - scores[base]
    return found


def listed(board: Board, metric: Metric, base: int, other: int | None, filter: Filter, words: str = "") -> list[int]:
    """The questions to show, by number, the most telling first, of those that hold every one of `words` somewhere."""
    delta = differences(board, metric, base, other)
    scores = board.scores[metric][[base] if other is None else [base, other]]
    match filter:
        case Filter.b_gt_a:
            order = _sorted(-delta, delta > TIE)
        case Filter.a_gt_b:
            order = _sorted(delta, delta < -TIE)
        case Filter.both_low:
            best = scores.max(axis=0)
            order = _sorted(best, best <= low(board, metric, base, other))
        case Filter.disagree:
            alike = np.array([_likeness(board, number, base, other) for number in range(board.questions)])
            order = _sorted(alike, alike < 1)
        case Filter.all:
            order = np.arange(board.questions)
    return [int(number) for number in order if not words or _holds(board, int(number), words.casefold().split())]


def low(board: Board, metric: Metric, base: int, other: int | None) -> float:
    """Scores up to here are low: wrong answers, or where a score has degrees the lower half of both evaluations'."""
    if metric is Metric.grounding:
        return 0.0
    return float(np.median(board.scores[metric][[base] if other is None else [base, other]]))


def _sorted(by: Floats, wanted: npt.NDArray[np.bool_]) -> Ints:
    """Wanted questions, the smallest first; equals in their order. A NaN is never wanted."""
    order = np.argsort(by, kind="stable")
    return order[wanted[order]]


def _likeness(board: Board, number: int, base: int, other: int | None) -> float:
    """Share of the words of two answers that are in both."""
    ours, theirs = (set(board.answers[each][number].prediction.casefold().split()) for each in (base, base if other is None else other))
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0


def _holds(board: Board, number: int, words: Sequence[str]) -> bool:
    first = board.answers[0][number]
    texts = [first.url, first.query, *first.references, *(answers[number].prediction for answers in board.answers)]
    everything = "\n".join(texts).casefold()
    return all(word in everything for word in words)
