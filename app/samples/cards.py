"""What the run page shows of samples: a card for each question, with the answers as the model learned, newest first. Pure: rows come in."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.evaluations import words
from app.evaluations.words import Piece
from app.models import Sample
from panollava.stages import Stage

NEWEST = 5
"""Answers on a card before one asks for all."""


@dataclass(frozen=True)
class Answer:
    """What the model said after one validation. `reference` is the one its words are held against, from 1."""

    stage: Stage
    step: int
    pieces: list[Piece]
    reference: int
    found: frozenset[int]


@dataclass(frozen=True)
class Card:
    """One question; the references are marked with what the newest answer leaves out."""

    url: str
    query: str
    references: list[list[Piece]]
    answers: list[Answer]
    count: int
    """Answers there are, shown or not."""


def cards(newest_first: Sequence[tuple[Sample, Stage]], shown: int | None = NEWEST) -> list[Card]:
    """In the order in which the questions are asked. Of a step that was told twice the later answer counts."""
    by_question: dict[tuple[str, str], dict[tuple[Stage, int], Sample]] = defaultdict(dict)
    for row, stage in reversed(newest_first):
        by_question[row.url, row.query][stage, row.step] = row
    return [_card(list(told.items())[::-1], shown) for told in by_question.values()]


def _card(told: Sequence[tuple[tuple[Stage, int], Sample]], shown: int | None) -> Card:
    newest = told[0][1]
    answers = [_answer(row, stage) for (stage, _), row in told[:shown]]
    said = [[answers[0].found] if answers[0].reference == number else [] for number in range(1, len(newest.references) + 1)]
    references = [words.reference(text, found) for text, found in zip(newest.references, said, strict=True)]
    return Card(newest.url, newest.query, references, answers, len(told))


def _answer(row: Sample, stage: Stage) -> Answer:
    if not row.references:
        return Answer(stage, row.step, [Piece(row.prediction, "")] if row.prediction else [], 0, frozenset())
    marked = words.against(row.prediction, row.references)
    return Answer(stage, row.step, marked.pieces, marked.reference + 1, marked.found)
