"""Views of every crop strategy, and of other sizes than the encoder's own, become image tokens."""

from typing import Any

import numpy as np
import pytest
import torch

from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.layouts import STRATEGIES
from panollava.model.parts import build
from panollava.views import Cutter


def tokens_of(config: RunConfig, **changes: Any) -> tuple[int, torch.Tensor]:
    """How many image tokens a model says it makes, and those it makes of a panorama of noise."""
    built = build(config.model_copy(update=changes), language=False)
    panorama = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    cut = Cutter(built.layout, built.architecture.image_size)(panorama)
    built.model.eval()
    with torch.no_grad():
        return built.image_tokens, built.model.image_tokens(torch.from_numpy(cut)[None])[0]


@pytest.mark.parametrize(("strategy", "views"), [("e2p", 8), ("anyres_e2p", 25), ("cubemap", 6), ("sliding_window", 8), ("resize", 1)])
def test_every_strategy_makes_as_many_image_tokens_as_it_says(config: RunConfig, strategy: str, views: int) -> None:
    said, made = tokens_of(config, crop_strategy=strategy)
    assert said == len(made) == views * 16 // config.pool**2
    assert made.isfinite().all()


def test_every_strategy_is_tried_here() -> None:
    assert set(STRATEGIES) == {"e2p", "anyres_e2p", "cubemap", "sliding_window", "resize"}


def test_larger_views_have_more_patches_whose_positions_are_interpolated(config: RunConfig) -> None:
    said, made = tokens_of(config, view_size=64)
    assert said == len(made) == 4 * tokens_of(config)[0]


def test_views_of_the_encoder_s_own_size_are_what_they_were(config: RunConfig) -> None:
    (_, unset), (_, own) = tokens_of(config), tokens_of(config, view_size=32)
    assert torch.equal(unset, own)


def test_a_size_that_is_no_whole_number_of_patches_is_refused(config: RunConfig) -> None:
    with pytest.raises(BadInput, match="view_size is 50, which"):
        build(config.model_copy(update={"view_size": 50}), language=False)
