"""What is asked of whom: the image itself, and the controls, which take something away or move it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from panollava.config import EvaluateConfig
from panollava.data.images import read_panorama
from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer, load
from panollava.evaluation.questions import Question, swapped, turned
from panollava.metrics.captions import Condition
from panollava.training.data import Panoramas

GREY = 127

Views = np.ndarray[Any, Any]
"""uint8 [V, S, S, 3]"""


@dataclass(frozen=True)
class Shown:
    """One condition: who answers, what is shown for each panorama, and what is asked."""

    condition: Condition
    answerer: Answerer
    views: Callable[[int], Views]
    questions: Sequence[Question]


def conditions(
    config: EvaluateConfig, answerer: Answerer, panoramas: Panoramas, questions: Sequence[Question], phrases: Sequence[str]
) -> Iterator[Shown]:
    """The image itself, then the controls that are wanted. `phrases` are the direction words that turn when a panorama is rolled.

    Raises BadInput for a control that these questions cannot have.
    """
    order = sorted({question.image for question in questions})
    following = dict(zip(order, [*order[1:], *order[:1]], strict=True))

    def rolled(image: int) -> Views:
        panorama = read_panorama(panoramas.paths[image], panoramas.reading).pixels
        return answerer.cutter(np.roll(panorama, panorama.shape[1] // 4, axis=1))

    yield Shown("image", answerer, panoramas.__getitem__, questions)
    for control in config.controls:
        match control:
            case "blank":
                yield Shown("blank", answerer, lambda image: np.full_like(panoramas[image], GREY), questions)
            case "shuffled":
                if len(order) < 2:
                    raise BadInput("controls: shuffled shows another panorama's image, and this table has only one.")
                yield Shown("shuffled", answerer, lambda image: panoramas[following[image]], questions)
            case "rolled":
                yield Shown("rolled", answerer, rolled, turned(questions, phrases))
            case "untrained":
                untrained = load(Path(config.checkpoint), untrained_seed=config.seed + 1)
                yield Shown("untrained", untrained, panoramas.__getitem__, questions)
            case "query_swap":
                yield Shown("query_swap", answerer, panoramas.__getitem__, swapped(questions))
