"""What is asked of whom: the image itself, and the controls, which take something away or move it.

Legend: U panoramas, V views, S view side, N image tokens, L language width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from panollava.config import EvaluateConfig
from panollava.data.images import read_panorama
from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer, load
from panollava.evaluation.questions import Question, swapped, turned
from panollava.metrics.captions import Condition
from panollava.training.data import Panoramas
from panollava.training.features import AT_ONCE, Features, encode_missing, features_of

GREY = 127
PRECISION = "32-true"
"""In which answers are given, and under which features are kept."""

Views = np.ndarray[Any, Any]
"""uint8 [V, S, S, 3]"""
Encode = Callable[[Sequence[int]], Tensor]
"""Panoramas by their numbers -> image tokens [U, N, L]."""


@dataclass(frozen=True)
class Shown:
    """One condition: who answers, what is seen of each panorama, and what is asked."""

    condition: Condition
    answerer: Answerer
    encode: Encode
    questions: Sequence[Question]


@dataclass(frozen=True)
class Sight:
    """What an answerer sees of panoramas as they are. With a place for features each is encoded once, whatever is asked of it and how often."""

    answerer: Answerer
    panoramas: Panoramas
    features: Features | None

    @classmethod
    def of(cls, answerer: Answerer, panoramas: Panoramas, cache: str) -> Self:
        """`cache` is as for a training whose encoder is frozen."""
        if panoramas.entries is None or cache != "auto":
            return cls(answerer, panoramas, None)
        room, recipe = panoramas.entries.room, panoramas.entries.recipe
        return cls(answerer, panoramas, features_of(answerer.model, room, recipe, panoramas.pictures, PRECISION, answerer.device))

    def __call__(self, images: Sequence[int]) -> Tensor:
        """[U, N, L]"""
        grid = self._features(self.features, images) if self.features else None
        return drawn(self.answerer, self.panoramas.__getitem__)(images) if grid is None else self.answerer.bridge(grid)

    def _features(self, features: Features, images: Sequence[int]) -> Tensor | None:
        """[U, V, G, G, D]; None where the cache has no room for all of them."""
        encode_missing(features, self.answerer.model, images, self.panoramas.__getitem__, self.answerer.device, lambda done, total: None)
        return features.of(images)


def drawn(answerer: Answerer, views: Callable[[int], Views]) -> Encode:
    """Encode what is drawn, as many panoramas together as features are made of."""

    def encode(images: Sequence[int]) -> Tensor:
        groups = [images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)]
        return torch.cat([answerer.encode(torch.from_numpy(np.stack([views(image) for image in group]))) for group in groups])

    return encode


def conditions(
    config: EvaluateConfig, answerer: Answerer, panoramas: Panoramas, questions: Sequence[Question], phrases: Sequence[str]
) -> Iterator[Shown]:
    """The image itself, then the controls that are wanted. `phrases` are the direction words that turn when a panorama is rolled.

    Raises BadInput for a control that these questions cannot have.
    """
    order = sorted({question.image for question in questions})
    following = dict(zip(order, [*order[1:], *order[:1]], strict=True))

    sight = Sight.of(answerer, panoramas, config.cache)

    def rolled(image: int) -> Views:
        panorama = read_panorama(panoramas.paths[image], panoramas.reading).pixels
        return answerer.cutter(np.roll(panorama, panorama.shape[1] // 4, axis=1))

    def blank(images: Sequence[int]) -> Tensor:
        """All of them look alike, so one is encoded."""
        grey = np.full_like(panoramas[images[0]], GREY)
        return answerer.encode(torch.from_numpy(grey[None])).expand(len(images), -1, -1)

    yield Shown("image", answerer, sight, questions)
    for control in config.controls:
        match control:
            case "blank":
                yield Shown("blank", answerer, blank, questions)
            case "shuffled":
                if len(order) < 2:
                    raise BadInput("controls: shuffled shows another panorama's image, and this table has only one.")
                yield Shown("shuffled", answerer, lambda images: sight([following[image] for image in images]), questions)
            case "rolled":
                yield Shown("rolled", answerer, drawn(answerer, rolled), turned(questions, phrases))
            case "untrained":
                untrained = load(Path(config.checkpoint), untrained_seed=config.seed + 1)
                yield Shown("untrained", untrained, Sight.of(untrained, panoramas, config.cache), questions)
            case "query_swap":
                yield Shown("query_swap", answerer, sight, swapped(questions))
