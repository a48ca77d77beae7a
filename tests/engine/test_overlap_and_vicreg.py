"""Stage vision's loss: the right pairs, statistics across images, and numbers that are known beforehand."""

import math

import pytest
import torch

from panollava import views
from panollava.losses.overlap import OverlapPairs, effective_rank, retrieval
from panollava.losses.vicreg import vicreg

RING = views.ring(8, 90.0)


def directions(grid: int) -> torch.Tensor:
    """Unit vectors of the true direction of each cell of each view, as features [1, V, G, G, 3]."""
    centre = (torch.arange(grid) + 0.5) / grid * 2 - 1
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    maps = []
    for view in RING:
        yaw = math.radians(view.yaw)
        ray = torch.stack([u * math.cos(yaw) + math.sin(yaw), -v, -u * math.sin(yaw) + math.cos(yaw)], -1)
        maps.append(ray / ray.norm(dim=-1, keepdim=True))
    return torch.stack(maps)[None]


@pytest.mark.parametrize("grid", [4, 14, 16])
def test_paired_cells_look_in_the_same_direction_all_around_the_ring(grid: int) -> None:
    mine, theirs = OverlapPairs(RING, grid)(directions(grid))
    assert mine.shape == theirs.shape
    # Bilinear sampling of a curved field is off by some of the cell's size squared; a wrong pairing would be off by whole cells.
    assert (mine - theirs).norm(dim=-1).max() < (2 / grid) ** 2 / 4


def test_pairing_columns_linearly_is_degrees_off() -> None:
    features = directions(14)
    linear = (features[:, :, :, 7:] - features.roll(-1, 1)[:, :, :, :7]).norm(dim=-1)
    mine, theirs = OverlapPairs(RING, 14)(features)
    assert linear.mean() > 20 * (mine - theirs).norm(dim=-1).mean()


def test_the_last_view_is_paired_with_the_first() -> None:
    features = torch.zeros(1, 8, 14, 14, 1)
    features[:, 0] = 1.0
    mine, theirs = OverlapPairs(RING, 14)(features)
    changed = ((mine - theirs).abs().amax((-1, -2)) > 0.5).squeeze(0)
    assert changed.tolist() == [True, True, False, False, False, False, False, True]


def weighted(a: torch.Tensor, b: torch.Tensor) -> float:
    terms = vicreg(a, b)
    return float(25 * terms.invariance + 25 * terms.variance + terms.covariance)


def test_collapsed_features_cost_what_the_formula_says() -> None:
    constant = torch.ones(8, 8, 6, 32)
    assert weighted(constant, constant) == pytest.approx(25 * (1 - math.sqrt(1e-4)), abs=1e-4)


def test_features_that_know_only_their_position_count_as_collapsed() -> None:
    position = torch.randn(1, 8, 6, 32, generator=torch.Generator().manual_seed(0)).expand(16, -1, -1, -1)
    assert weighted(position, position) == pytest.approx(24.75, abs=1e-3)


def test_independent_pairs_cost_fifty_more_than_identical_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 8, 8, 16, generator=generator) for _ in range(2))
    same, other = weighted(a, a), weighted(a, b)
    assert other - same == pytest.approx(50, rel=0.03)


def test_redundant_features_are_punished_by_the_covariance() -> None:
    one = torch.randn(32, 8, 6, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, -1, 16)
    assert float(vicreg(one, one).covariance) > 20


def test_fewer_than_four_images_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="at least 4; this batch has 3"):
        vicreg(torch.randn(3, 8, 6, 4), torch.randn(3, 8, 6, 4))


def test_views_without_a_common_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="share no whole cell"):
        OverlapPairs(views.ring(4, 90.0), 4)


def test_retrieval_finds_partners_and_effective_rank_counts_dimensions() -> None:
    features = torch.randn(4, 8, 6, 16, generator=torch.Generator().manual_seed(0))
    assert retrieval(features, features) == 1.0
    flat = torch.randn(4096, 4, generator=torch.Generator().manual_seed(0))
    assert effective_rank(flat) == pytest.approx(4, abs=0.05)
    assert effective_rank(flat[:, :1] @ torch.ones(1, 4)) == pytest.approx(1, abs=0.05)
