"""The questions of a table, grouped with their references, and the ground truth a dataset brings with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from panollava.data.index import Index
from panollava.data.table import normalised
from panollava.errors import BadInput
from panollava.metrics.captions import Condition, Prediction
from panollava.metrics.grounding import Figures, Grounding, chance, read_grounding, read_truth, turn

GROUNDING = "grounding.json"


@dataclass(frozen=True)
class Question:
    """One (image, query) with everything an answer to it is measured against."""

    image: int
    url: str
    query: str
    references: tuple[str, ...]
    kind: str | None = None
    template: str | None = None
    expect: dict[str, str] | None = None
    seam: bool | None = None

    def answered(self, text: str, condition: Condition) -> Prediction:
        return Prediction(
            url=self.url, query=self.query, references=list(self.references), prediction=text, condition=condition,
            kind=self.kind, template=self.template, expect=self.expect, seam=self.seam,
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
            found[key] = Question(image, row.url, row.query, (row.annotation,))
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


def chance_level(train: Path, test: Path, figures: Figures) -> dict[str, float]:
    """What the best constant answers of the training split score on the test split; empty where either has no ground truth."""
    learned, asked = truth_path(train), truth_path(test)
    if not (learned.exists() and asked.exists()):
        return {}
    return chance(read_truth(learned, figures), read_truth(asked, figures), figures)


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
            query=turn(question.query, phrases),
            references=tuple(turn(reference, phrases) for reference in question.references),
            expect=None if question.expect is None else {figure: turn(word, phrases) for figure, word in question.expect.items()},
        )
        for question in questions
    ]
