"""Every control shows what it says it shows: nothing, another panorama, or the same one turned so that what was ahead is to the right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from panollava.config import Control, EvaluateConfig
from panollava.evaluation.conditions import GREY, Shown, conditions
from panollava.evaluation.questions import grouped
from panollava.metrics.directions import TURN
from panollava.metrics.grounding import turn
from panollava.training.data import Split
from panollava.views import Cutter

CONTROLS: tuple[Control, ...] = ("blank", "shuffled", "rolled")


@dataclass
class Looking:
    """An answerer whose image tokens are the views that it is shown."""

    cutter: Cutter

    def encode(self, views: torch.Tensor) -> torch.Tensor:
        return views.flatten(2)


@pytest.fixture(scope="module")
def shown(split: Split) -> dict[str, Shown]:
    answerer: Any = Looking(split.panoramas.cutter)
    config = EvaluateConfig(checkpoint="best.ckpt", csv="test.csv", controls=CONTROLS)
    return {each.condition: each for each in conditions(config, answerer, split.panoramas, grouped(split.index), TURN)}


def views(shown: Shown, image: int) -> np.ndarray[Any, Any]:
    """[V, S*S*3]"""
    return shown.encode([image])[0].numpy().astype(int)


def test_the_image_is_shown_as_it_is_and_blank_is_grey(shown: dict[str, Shown], split: Split) -> None:
    assert (views(shown["image"], 3) == split.panoramas[3].reshape(8, -1)).all()
    assert (views(shown["blank"], 3) == GREY).all()


def test_shuffled_shows_each_panorama_once_and_never_the_one_that_is_asked_about(shown: dict[str, Shown], split: Split) -> None:
    images = split.index.used_images
    theirs = [next(other for other in images if (views(shown["shuffled"], image) == views(shown["image"], other)).all()) for image in images]
    assert sorted(theirs) == images
    assert all(image != other for image, other in zip(images, theirs, strict=True))


def test_rolled_shows_to_the_right_what_was_ahead_and_asks_for_it_there(shown: dict[str, Shown]) -> None:
    before, after = views(shown["image"], 3), views(shown["rolled"], 3)
    quarter = 2  # of the ring's 8 views
    assert np.abs(np.roll(before, quarter, axis=0) - after).max() <= 1
    assert np.abs(np.roll(before, -quarter, axis=0) - after).max() > 20
    assert turn("what is in front?", TURN) == "what is on the right?"
