"""Write PanoShapes as a data set in the QuIC-360 schema, with the truth that grounding figures are scored against:

images/*.jpg, {train,valid,test}.csv, {train,valid,test}.truth.jsonl, grounding.json, panoshapes.json.
"""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image as pil

from panollava import rundir
from panollava.data.panoshapes import COLOURS, DIRECTIONS, SHAPES, Question, Renderer, Scene, every_question, random_question, sample_scene
from panollava.data.threads import in_order
from panollava.errors import BadInput

RECIPE_FILE = "panoshapes.json"
"""What a directory was made with; also the sign that it is ours to replace."""
GROUNDING = {"figures": {"colour": list(COLOURS), "shape": list(SHAPES), "direction": list(DIRECTIONS)}, "turn": list(DIRECTIONS)}
"""`figures`: all words or phrases of a figure. `turn`: each becomes the next one when a panorama is rolled by 90 degrees to the right."""
HEIGHT = 256
TRAINING_QUESTIONS = 4

OnProgress = Callable[[int, int], None]
"""(panoramas done, panoramas in all)"""


@dataclass(frozen=True)
class Split:
    """`name` is the stem of its files, `stream` its own part of the seed; the other two are for `sample_scene`."""

    name: str
    stream: int
    panoramas: int
    p_object: float = 0.7
    p_seam: float = 0.0


def make_demo(directory: Path, train: int = 2000, valid: int = 100, test: int = 640, seed: int = 0, on_progress: OnProgress | None = None) -> None:
    """Render the three splits. The directory appears whole or not at all; one that this made before is replaced.

    The test split is denser and has nearly every object behind across the seam, so that 640 panoramas ask more than 500 questions there
    about each of colour, shape and direction. Raises BadInput for a directory that holds anything else, and where nothing can be written.
    """
    splits = [Split("train", 0, train), Split("valid", 1, valid), Split("test", 2, test, p_object=0.87, p_seam=0.9)]
    total, done = sum(split.panoramas for split in splits), 0
    with _made_whole(directory.absolute()) as new:
        (new / "images").mkdir()
        for split in splits:
            for _ in _write_split(new, split, seed):
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        (new / "grounding.json").write_text(json.dumps(GROUNDING, indent=1) + "\n")
        recipe = {"seed": seed, "height": HEIGHT, "splits": [asdict(split) for split in splits]}
        (new / RECIPE_FILE).write_text(json.dumps(recipe, indent=1) + "\n")


@contextmanager
def _made_whole(directory: Path) -> Iterator[Path]:
    """A new directory that takes the place of `directory` at the end; until then, and after a failure, that is as it was."""
    rundir.check_replaceable(directory)
    if directory.exists() and not (directory / RECIPE_FILE).is_file() and (not directory.is_dir() or any(directory.iterdir())):
        raise BadInput(f"{directory}: holds something that make-demo has not made; name another directory.")
    with TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as part:
        new = Path(part) / "new"
        new.mkdir()
        yield new
        if directory.exists():
            directory.rename(Path(part) / "old")
        new.rename(directory)


def _write_split(directory: Path, split: Split, seed: int) -> Iterator[None]:
    """Images, rows and truth of one split, a panorama for each step of the iterator."""
    draw = Renderer(HEIGHT)

    def make(number: int) -> tuple[str, list[tuple[Question, list[str]]]]:
        # The last word keeps these streams apart from generators that are seeded with a plain number, as the tiny models' are.
        rng, url = np.random.default_rng([seed, split.stream, number, 360]), f"images/{split.name}_{number:05d}.jpg"
        scene = sample_scene(rng, split.p_object, split.p_seam)
        pil.fromarray(draw(scene, rng)).save(directory / url, quality=92, subsampling=0)
        if split.name == "train":
            return url, [(question, [str(rng.choice(question.references))]) for question in _different_questions(scene, rng)]
        return url, [(question, list(question.references)) for question in every_question(scene, rng)]

    with (directory / f"{split.name}.csv").open("w", newline="") as table, (directory / f"{split.name}.truth.jsonl").open("w") as truth:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["url", "query", "annotation"])
        for url, asked in in_order(make, range(split.panoramas)):
            for question, references in asked:
                rows.writerows([url, question.query, reference] for reference in references)
                truth.write(_truth(url, question))
            yield


def _different_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Different random questions, as many as a training panorama has."""
    questions: dict[str, Question] = {}
    while len(questions) < TRAINING_QUESTIONS:
        question = random_question(scene, rng)
        questions[question.query] = question
    return list(questions.values())


def _truth(url: str, question: Question) -> str:
    known = {"url": url, "query": question.query, "kind": question.kind, "template": question.template}
    return json.dumps({**known, "expect": question.expect, "seam": question.seam}) + "\n"
