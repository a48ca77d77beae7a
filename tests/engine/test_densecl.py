"""DenseCL on overlap pairs: what is near, what is far, and what is neither."""

import math

import pytest
import torch

from panollava import layouts
from panollava.config import RunConfig
from panollava.losses.densecl import NEGATIVES, densecl
from panollava.losses.overlap import OverlapPairs, evenly

PAIRS = OverlapPairs(layouts.layout(RunConfig()), 4)
CELLS = len(PAIRS.here)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_partners_that_agree_and_differ_from_all_others_cost_almost_nothing() -> None:
    a = noise(6, CELLS, 256)
    loss, accuracy = densecl(a, a, PAIRS, 0.05)
    assert float(loss) < 0.01
    assert float(accuracy) == 1.0


def test_constant_features_cost_the_logarithm_of_what_they_are_told_from() -> None:
    a = torch.ones(6, CELLS, 8)
    far = PAIRS.direction @ PAIRS.direction.T <= math.cos(math.radians(45)) + 1e-6  # 2 cells of 90 / 4 degrees
    expected = (6 + far.sum(1)).log().mean()
    assert float(densecl(a, a, PAIRS, 0.2)[0]) == pytest.approx(float(expected), abs=1e-4)


def test_features_that_ignore_the_image_or_the_place_are_no_way_out() -> None:
    place, image = noise(1, CELLS, 64).expand(6, -1, -1), noise(6, 1, 64).expand(-1, CELLS, -1)
    both = noise(6, CELLS, 64)
    good = float(densecl(both, both, PAIRS, 0.2)[0])
    assert float(densecl(place, place, PAIRS, 0.2)[0]) > good + 1
    assert float(densecl(image, image, PAIRS, 0.2)[0]) > good + 1


def test_the_loss_is_symmetric_and_blind_to_scale() -> None:
    a, b = noise(5, CELLS, 16), noise(5, CELLS, 16).flip(0)
    assert float(densecl(a, b, PAIRS, 0.2)[0]) == pytest.approx(float(densecl(b, 7 * a, PAIRS, 0.2)[0]), rel=1e-5)


def test_cells_that_may_show_the_same_are_not_pushed_apart() -> None:
    """The same panorama nearby: its features have no gradient but from their own partner and other panoramas."""
    a, b = noise(4, CELLS, 16), noise(4, CELLS, 16)
    near = (PAIRS.direction @ PAIRS.direction[0] > math.cos(math.radians(45)) + 1e-6).nonzero().flatten()
    b.requires_grad_()
    picked = int(near[near != 0][0])
    only_first = a.clone()
    only_first[:, 1:] = 0  # of the queries only those of the first cell pull at keys
    densecl(only_first, b, PAIRS, 0.2)[0].backward()
    assert b.grad is not None
    far = int((PAIRS.direction @ PAIRS.direction[0]).argmin())
    assert b.grad[:, far].norm() > 5 * b.grad[:, picked].norm()


def test_memory_does_not_grow_with_the_square_of_the_cells() -> None:
    assert len(evenly(30_000, NEGATIVES)) == NEGATIVES
    assert evenly(5, NEGATIVES).tolist() == [0, 1, 2, 3, 4]


def test_fewer_than_four_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4; this batch has 3"):
        densecl(noise(3, CELLS, 8), noise(3, CELLS, 8), PAIRS, 0.2)
