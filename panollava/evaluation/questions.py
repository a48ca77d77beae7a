"""The questions of a table, grouped with their references, and the ground truth a dataset brings with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from panollava.data.index import Index
from panollava.data.table import normalised
from panollava.errors import BadInput
from panollava.metrics.captions import Condition, Prediction
from panollava.metrics.directions import TURN
from panollava.metrics.grounding import Figures, Grounding, chance, read_grounding, read_truth, turn

GROUNDING = "grounding.json"


@dataclass(frozen=True)
class Question:
    """One (image, query) with everything an answer to it is measured against."""

    image: int
    url: str
    query: str
    references: tuple[str, ...]
    asked: str | None = None
    """The words it is asked in under a control that changes them."""
    kind: str | None = None
    template: str | None = None
    expect: dict[str, str] | None = None
    seam: bool | None = None
    image_sha256: str | None = None

    @property
    def words(self) -> str:
        return self.query if self.asked is None else self.asked

    def answered(self, text: str, condition: Condition, truncated: bool | None = None) -> Prediction:
        return Prediction(
            url=self.url, query=self.query, references=list(self.references), prediction=text, condition=condition, asked=self.asked,
            truncated=truncated,
            kind=self.kind, template=self.template, expect=self.expect, seam=self.seam, image_sha256=self.image_sha256,
        )  # fmt: skip


def read_questions(csv: Path, index: Index, limit: int | None) -> list[Question]:
    """The table's questions in its order, with the ground truth that its dataset brings. At most `limit` panoramas."""
    questions = grouped(index)
    wanted = set(sorted({question.image for question in questions})[:limit])
    return _with_truth(csv, [question for question in questions if question.image in wanted])


def grouped(index: Index) -> list[Question]:
    """In the table's order; rows of the same image and the same words are references of one question."""
    found: dict[tuple[int, str], Question] = {}
    for row, image in zip(index.rows, index.row_image, strict=True):
        key = (image, normalised(row.query))
        known = found.get(key)
        if known is None:
            picture = index.pictures[image]
            found[key] = Question(image, row.url, row.query, (row.annotation,), image_sha256=picture.sha256 if picture else None)
        else:
            found[key] = replace(known, references=(*known.references, row.annotation))
    return list(found.values())


def truth_path(csv: Path) -> Path:
    """`test.csv` -> `test.truth.jsonl`"""
    return csv.with_name(f"{csv.stem}.truth.jsonl")


def grounding_of(csv: Path) -> Grounding | None:
    """The vocabulary of a table's ground truth; None where the dataset has none. Raises BadInput for a file that is not right."""
    path = csv.parent / GROUNDING
    return read_grounding(path) if path.exists() and truth_path(csv).exists() else None


def direction_words(csv: Path) -> Sequence[str]:
    """The phrases that turn with a panorama: the dataset's own, or plain English."""
    grounding = grounding_of(csv)
    return grounding.turn if grounding else TURN


def chance_level(train: Sequence[Path], test: Path, figures: Figures) -> dict[str, float]:
    """What the best constant answers of the training tables score on the test split; empty where any of them has no ground truth."""
    learned, asked = [truth_path(csv) for csv in train], truth_path(test)
    if not all(path.exists() for path in (*learned, asked)):
        return {}
    return chance([line for path in learned for line in read_truth(path, figures)], read_truth(asked, figures), figures)


def _with_truth(csv: Path, questions: list[Question]) -> list[Question]:
    grounding = grounding_of(csv)
    if grounding is None:
        return questions
    path = truth_path(csv)
    truth = {(line.url, line.query): line for line in read_truth(path, grounding.figures)}
    if missing := [question for question in questions if (question.url, question.query) not in truth]:
        raise BadInput(f"{path}: says nothing of {len(missing)} questions of {csv.name}, such as {missing[0].query!r} of {missing[0].url}.")
    lines = ((question, truth[question.url, question.query]) for question in questions)
    return [replace(q, kind=line.kind, template=line.template, expect=line.expect, seam=line.seam) for q, line in lines]


def turned(questions: Sequence[Question], phrases: Sequence[str]) -> list[Question]:
    """The questions that a panorama rolled by +90 degrees answers alike: every direction phrase becomes the next one clockwise."""
    return [
        replace(
            question,
            asked=turn(question.query, phrases),
            references=tuple(turn(reference, phrases) for reference in question.references),
            expect=None if question.expect is None else {figure: turn(word, phrases) for figure, word in question.expect.items()},
        )
        for question in questions
    ]


def swapped(questions: Sequence[Question]) -> list[Question]:
    """Each question in the words of another one of its panorama that has another answer; where there is none, in the table's next other words.

    Raises BadInput for a table that asks all its questions in the same words.
    """
    of_image: dict[int, list[Question]] = {}
    for question in questions:
        of_image.setdefault(question.image, []).append(question)
    words = list(dict.fromkeys(question.query for question in questions))
    if len(words) < 2:
        raise BadInput(f"controls: query_swap asks in the words of another question, and this table has only {words[0]!r}.")
    following = dict(zip(words, [*words[1:], words[0]], strict=True))
    return [replace(question, asked=_other(question, of_image[question.image]) or following[question.query]) for question in questions]


def _other(question: Question, beside: Sequence[Question]) -> str | None:
    """The query of the next question about the panorama, once around, whose answer is not this one's."""
    start = beside.index(question)
    around = (*beside[start + 1 :], *beside[:start])
    return next((each.query for each in around if (each.expect, set(each.references)) != (question.expect, set(question.references))), None)
