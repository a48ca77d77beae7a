"""What the samples half of a comparison shows: one page of the list, and one question with everybody's answer to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.evaluations import samples, words
from app.evaluations.figures import signed
from app.evaluations.samples import Board, Metric
from app.evaluations.state import State
from app.evaluations.words import Piece
from panollava.metrics.captions import Prediction

PAGE = 25
"""Questions in the list at once."""


@dataclass(frozen=True)
class Item:
    """A question in the list. `share` of a full bar; `winner` is an evaluation's place among those compared."""

    number: int
    question: Prediction
    text: str
    share: float
    winner: int | None


@dataclass(frozen=True)
class Check:
    """A figure that the question asks for, the right word, and whether the answer names it."""

    figure: str
    word: str
    is_right: bool


@dataclass(frozen=True)
class Answer:
    """What one evaluation says. `reference` is the one its words are held against, from 1."""

    pieces: list[Piece]
    reference: int
    score: str
    is_best: bool
    checks: list[Check]


@dataclass(frozen=True)
class Sample:
    """One question, its references and all answers."""

    number: int
    question: Prediction
    references: list[list[Piece]]
    answers: list[Answer]


@dataclass(frozen=True)
class Explorer:
    """A page of the list and the question that is open. `first` and `last` count from 1."""

    items: list[Item]
    first: int
    count: int
    page: int
    pages: int
    previous: int | None
    next: int | None
    sample: Sample | None


def explore(board: Board, state: State) -> Explorer:
    """What the state of the page asks for; a question that the filter leaves out is shown beside a list without it."""
    base, other = place(state, state.base), place(state, state.other)
    order = samples.listed(board, state.metric, base or 0, other, state.filter, state.q)
    chosen = state.sample - 1 if state.sample is not None and state.sample <= board.questions else None
    at = order.index(chosen) if chosen in order else None
    pages = max(1, -(-len(order) // PAGE))
    page = at // PAGE + 1 if at is not None else min(state.page, pages)
    if chosen is None and order:
        at = (page - 1) * PAGE
        chosen = order[at]
    return Explorer(
        items=_items(board, state, order[(page - 1) * PAGE : page * PAGE]), first=(page - 1) * PAGE + 1, count=len(order), page=page, pages=pages,
        previous=order[at - 1] + 1 if at else None, next=_next(order, at),
        sample=None if chosen is None else _sample(board, chosen, state.metric),
    )  # fmt: skip


def place(state: State, evaluation: int | None) -> int | None:
    """Where an evaluation stands among those compared."""
    return None if evaluation is None else state.ids.index(evaluation)


def _next(order: Sequence[int], at: int | None) -> int | None:
    after = 0 if at is None else at + 1
    return order[after] + 1 if after < len(order) else None


def _items(board: Board, state: State, numbers: Sequence[int]) -> list[Item]:
    base, other = place(state, state.base) or 0, place(state, state.other)
    deltas = samples.differences(board, state.metric, base, other)
    longest = max(float(np.nanmax(np.abs(deltas), initial=0)), 1e-9)
    return [_item(board, number, float(deltas[number]), longest, base, other) for number in numbers]


def _item(board: Board, number: int, delta: float, longest: float, base: int, other: int | None) -> Item:
    question = board.answers[0][number]
    if np.isnan(delta):
        return Item(number + 1, question, "–", 0.0, None)
    text = f"{delta:.2f}" if other is None else signed(delta, 2)
    winner = base if delta < 0 or other is None else other
    return Item(number + 1, question, text, abs(delta) / longest, winner)


def _sample(board: Board, number: int, metric: Metric) -> Sample:
    question = board.answers[0][number]
    marked = [words.against(each[number].prediction, question.references) for each in board.answers]
    said = [[each.found for each in marked if each.reference == place] for place in range(len(question.references))]
    scores = board.scores[metric][:, number]
    best = scores.max()
    answers = [
        Answer(each.pieces, each.reference + 1, _score(float(score)), bool(score == best > scores.min()), _checks(board, row, number))
        for row, (each, score) in enumerate(zip(marked, scores, strict=True))
    ]
    references = [words.reference(text, found) for text, found in zip(question.references, said, strict=True)]
    return Sample(number + 1, question, references, answers)


def _score(score: float) -> str:
    return "–" if np.isnan(score) else f"{score:.2f}"


def _checks(board: Board, row: int, number: int) -> list[Check]:
    if not board.marks:
        return []
    marks, expected = board.marks[row], board.answers[row][number].expect or {}
    return [
        Check(figure, expected.get(figure, figure), bool(marks.right[number, column]))
        for column, figure in enumerate(marks.figures)
        if marks.asked[number, column]
    ]
