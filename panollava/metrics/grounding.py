"""Whether an answer names what is really there: exact checks against a dataset's ground truth, figure by figure.

A figure is a property with a closed vocabulary (colour, shape, direction). Fluency is no concern here; captions.py scores that.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from panollava.errors import BadInput
from panollava.metrics.bootstrap import Interval
from panollava.metrics.captions import Prediction
from panollava.metrics.ngrams import Bools
from panollava.metrics.records import read_lines, read_whole

NOTHING = "nothing"
"""The word, and the figure, of a question whose right answer is that there is nothing."""

Figures = Mapping[str, Sequence[str]]


class Grounding(BaseModel):
    """A dataset's `grounding.json`: which words can be checked, and how directions turn with the panorama."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    figures: dict[str, list[str]] = Field(min_length=1, description="Figure -> its phrases.")
    turn: list[str] = Field([], description="Direction phrases clockwise, 90 degrees apart.")

    @field_validator("figures")
    @classmethod
    def _phrases_tell_apart(cls, figures: dict[str, list[str]]) -> dict[str, list[str]]:
        if NOTHING in figures:
            raise ValueError(f"{NOTHING!r} is the name of the figure for empty places and cannot be another's")
        for figure, phrases in figures.items():
            _check_phrases(figure, phrases)
        return figures

    @field_validator("turn")
    @classmethod
    def _four_directions(cls, turn: list[str]) -> list[str]:
        if turn and len(turn) != 4:
            raise ValueError(f"needs the 4 directions of a full turn, not {len(turn)}")
        _check_phrases("turn", turn)
        return turn


def _check_phrases(name: str, phrases: Sequence[str]) -> None:
    plain = [_plain(phrase) for phrase in phrases]
    if "" in plain or len(set(plain)) < len(plain):
        raise ValueError(f"{name} has an empty or a repeated phrase")


class Truth(BaseModel):
    """What is right for one question: a line of `<split>.truth.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    query: str
    kind: str = Field(description="Kind of question.")
    template: str = Field(description="Wording of the question, its object left out.")
    expect: dict[str, str] = Field(description="Figure -> word that a right answer names; empty where no figure is asked for.")
    seam: bool = Field(description="Whether the object asked about lies across the panorama's seam.")


class FigureScore(BaseModel):
    """Share of right answers; None where there was no such question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    accuracy: float | None
    seam_n: int
    seam_accuracy: float | None
    elsewhere_n: int
    elsewhere_accuracy: float | None
    interval: Interval | None = Field(None, description="Of the accuracy, 95 %, over questions drawn again.")
    seam_interval: Interval | None = Field(None, description="Of the two accuracies, where there are both.")
    elsewhere_interval: Interval | None = None


def read_grounding(path: Path) -> Grounding:
    """A dataset's `grounding.json`. Raises BadInput."""
    return read_whole(path, Grounding)


def read_truth(path: Path, figures: Figures) -> list[Truth]:
    """Every line of a `<split>.truth.jsonl`, its words checked against the vocabulary. Raises BadInput."""
    truth = read_lines(path, Truth)
    for each in truth:
        _check_expected(each, figures, f"{path}: ")
    return truth


def found(text: str, phrases: Sequence[str]) -> set[str]:
    """Which of `phrases` occur in a text as whole words; of those that begin at one place only the longest."""
    pattern, longest_first = _pattern(tuple(phrases))
    return {longest_first[match.lastindex - 1] for match in pattern.finditer(text) if match.lastindex}


def turn(text: str, phrases: Sequence[str]) -> str:
    """The text after a quarter turn clockwise: each of `phrases`, four a round, becomes the next of its round, all at once."""
    pattern, longest_first = _pattern(tuple(phrases))
    following = {phrase: phrases[place - place % 4 + (place + 1) % 4] for place, phrase in enumerate(phrases)}
    return pattern.sub(lambda match: following[longest_first[(match.lastindex or 0) - 1]], text)


@cache
def _pattern(phrases: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    """A pattern with one group per phrase, and the phrases in the order of the groups."""
    longest_first = sorted(phrases, key=len, reverse=True)
    either = "|".join("(" + r"\s+".join(map(re.escape, phrase.split())) + ")" for phrase in longest_first) or "(?!)"
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE), longest_first


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


# G questions, F figures, the last one NOTHING
@dataclass(frozen=True)
class Marks:
    """Which figures each question asks for, and which its answer has right."""

    figures: list[str]  # F names
    asked: Bools  # [G, F]
    right: Bools  # [G, F] never where not asked
    seam: Bools  # [G]


def marks(predictions: Sequence[Prediction], figures: Figures) -> Marks:
    """Look at every answer. A figure is right if the answer names its expected word and no other of the figure; NOTHING, if it says so and
    names no word of any figure. Questions without ground truth ask for nothing. Raises BadInput for a word outside the vocabulary."""
    names = [*figures, NOTHING]
    asked, right = np.zeros((2, len(predictions), len(names)), np.bool_)
    for row, each in enumerate(predictions):
        _check_expected(each, figures, "")
        if _expects_nothing(each):
            asked[row, -1] = True
            right[row, -1] = bool(found(each.prediction, [NOTHING])) and not any(found(each.prediction, figures[name]) for name in figures)
        for figure, word in (each.expect or {}).items():
            column = names.index(figure)
            asked[row, column] = True
            right[row, column] = found(each.prediction, figures[figure]) == {word}
    return Marks(names, asked, right, np.array([bool(each.seam) for each in predictions]))


def score(predictions: Sequence[Prediction], figures: Figures) -> dict[str, FigureScore]:
    """Accuracy of each figure, NOTHING among them, over the predictions of one condition. Empty where there is no ground truth at all."""
    each = marks(predictions, figures)
    if not each.asked.any():
        return {}
    return {figure: _figure_score(each.asked[:, column], each.right[:, column], each.seam) for column, figure in enumerate(each.figures)}


def _figure_score(asked: Bools, right: Bools, seam: Bools) -> FigureScore:
    n, accuracy = _accuracy(asked, right)
    seam_n, seam_accuracy = _accuracy(asked & seam, right)
    elsewhere_n, elsewhere_accuracy = _accuracy(asked & ~seam, right)
    return FigureScore(
        n=n, accuracy=accuracy, seam_n=seam_n, seam_accuracy=seam_accuracy, elsewhere_n=elsewhere_n, elsewhere_accuracy=elsewhere_accuracy
    )


def _accuracy(asked: Bools, right: Bools) -> tuple[int, float | None]:
    n = int(asked.sum())
    return n, int((right & asked).sum()) / n if n else None


def chance(train: Iterable[Truth], test: Iterable[Truth], figures: Figures) -> dict[str, float]:
    """What an answer without looking would score: per question template the word most frequent in training, on the test split.

    Figures that the test split never asks for are left out. Raises BadInput for a template that training does not have.
    """
    words: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for each in train:
        for figure, word in each.expect.items():
            words[each.template, figure][word] += 1
    right: dict[str, list[bool]] = {figure: [] for figure in figures}
    for each in test:
        for figure, word in each.expect.items():
            if (each.template, figure) not in words:
                raise BadInput(f"The training split has no question {each.template!r} about {figure}, so its best constant answer is unknown.")
            right[figure].append(words[each.template, figure].most_common(1)[0][0] == word)
    return {figure: sum(hits) / len(hits) for figure, hits in right.items() if hits}


def _expects_nothing(prediction: Prediction) -> bool:
    return prediction.kind == "what" and prediction.expect == {} and all(found(reference, [NOTHING]) for reference in prediction.references)


def _check_expected(each: Truth | Prediction, figures: Figures, where: str) -> None:
    for figure, word in (each.expect or {}).items():
        if figure not in figures:
            raise BadInput(f"{where}{each.query!r} of {each.url} expects a {figure!r}; the vocabulary has {', '.join(figures)}.")
        if word not in figures[figure]:
            raise BadInput(f"{where}{each.query!r} of {each.url} expects {figure} {word!r}, which is not among {', '.join(figures[figure])}.")
