"""Stage vision's loss: the right pairs, statistics across images, and numbers that are known beforehand."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from panollava import layouts, views
from panollava.config import RunConfig, parse
from panollava.errors import BadInput
from panollava.layouts import Layout
from panollava.losses import LOSSES
from panollava.losses.overlap import OverlapPairs, has_pairs
from panollava.losses.vicreg import vicreg
from panollava.views.geometry import angles

RING = layouts.layout(RunConfig())
LAYOUTS = {
    "e2p": RING,
    "more overlap": layouts.layout(RunConfig(overlap=0.75)),
    "tiles": layouts.layout(RunConfig(crop_strategy="anyres_e2p", overlap=0.6)),
    "crops": layouts.layout(RunConfig(crop_strategy="sliding_window")),
}


def directions(layout: Layout, grid: int) -> torch.Tensor:
    """Unit vectors of the true direction of each cell of each view, as features [1, V, G, G, 3]."""
    centre = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid * 2 - 1
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    maps = []
    for view in layout.views:
        longitude, latitude = map(torch.from_numpy, angles(view, u.numpy(), v.numpy()))
        longitude = longitude + math.radians(view.yaw)
        maps.append(torch.stack([latitude.cos() * longitude.sin(), latitude.sin(), latitude.cos() * longitude.cos()], -1))
    return torch.stack(maps)[None].float()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("grid", [4, 14, 16])
def test_paired_cells_look_in_the_same_direction_all_around_the_ring(layout: Layout, grid: int) -> None:
    pairs = OverlapPairs(layout, grid)
    mine, theirs = pairs(directions(layout, grid))
    assert mine.shape == theirs.shape
    # Bilinear sampling of a curved field is off by some of the cell's size squared; a wrong pairing would be off by whole cells.
    assert (mine - theirs).norm(dim=-1).max() < (2 / grid) ** 2 / 4 * (4 if layout is LAYOUTS["crops"] else 1)
    assert torch.allclose(mine[0], pairs.direction, atol=1e-6)


def test_what_is_sampled_is_what_grid_sample_gives() -> None:
    features = torch.randn(2, 8, 14, 14, 5, generator=torch.Generator().manual_seed(0))
    mine, theirs = OverlapPairs(RING, 14)(features)
    uv, valid = views.correspond(RING.views[1], RING.views[0], 14)  # of view 0 in view 1
    there = F.grid_sample(features[:, 1].permute(0, 3, 1, 2), torch.from_numpy(uv[valid])[None, None].expand(2, 1, -1, 2), align_corners=False)
    count = int(valid.sum())
    assert torch.equal(mine[:, :count], features[:, 0].flatten(1, 2)[:, valid.reshape(-1).nonzero()[0]])
    assert torch.allclose(theirs[:, :count], there[:, :, 0].transpose(1, 2), atol=1e-5)


def test_at_the_default_geometry_90_of_196_cells_have_a_partner_on_each_side() -> None:
    """Half of the columns, less the corners that the neighbour's rows do not reach; 98 where columns are paired linearly."""
    assert len(OverlapPairs(RING, 14).here) == 8 * 2 * 90
    assert len(OverlapPairs(RING, 16).here) == 8 * 2 * 118


def linear(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The right half of each view beside the left half of the next, column by column, as the user's earlier code paired them."""
    return features[:, :, :, 7:].flatten(1, 3), features.roll(-1, 1)[:, :, :, :7].flatten(1, 3)


def test_pairing_columns_linearly_is_degrees_off() -> None:
    features = directions(RING, 14)
    (a, b), (mine, theirs) = linear(features), OverlapPairs(RING, 14)(features)
    assert (a - b).norm(dim=-1).mean() > 20 * (mine - theirs).norm(dim=-1).mean()
    assert math.degrees(2 * math.asin((a - b).norm(dim=-1).mean() / 2)) == pytest.approx(6.6, abs=0.1)


def test_features_that_are_the_true_direction_agree_under_our_pairing_and_not_under_the_linear_one() -> None:
    features = directions(RING, 14).expand(4, -1, -1, -1, -1)
    ours, wrong = vicreg(*OverlapPairs(RING, 14)(features)).invariance, vicreg(*linear(features)).invariance
    assert float(ours) < 1e-5
    assert float(wrong) > 1e-3


def test_the_last_view_is_paired_with_the_first() -> None:
    features = torch.zeros(1, 8, 14, 14, 1)
    features[:, 0] = 1.0
    pairs = OverlapPairs(RING, 14)
    mine, theirs = pairs(features)
    changed = (mine - theirs).abs().amax((0, 2)) > 0.5
    assert pairs.view[changed].unique().tolist() == [0, 1, 7]


def test_the_global_view_is_paired_with_nothing() -> None:
    assert 0 not in OverlapPairs(LAYOUTS["tiles"], 14).view


def weighted(a: torch.Tensor, b: torch.Tensor) -> float:
    terms = vicreg(a, b)
    return float(25 * terms.invariance + 25 * terms.variance + terms.covariance)


def test_collapsed_features_cost_what_the_formula_says() -> None:
    constant = torch.ones(8, 48, 32)
    assert weighted(constant, constant) == pytest.approx(25 * (1 - math.sqrt(1e-4)), abs=1e-4)


def test_features_that_know_only_their_position_count_as_collapsed() -> None:
    position = torch.randn(1, 48, 32, generator=torch.Generator().manual_seed(0)).expand(16, -1, -1)
    assert weighted(position, position) == pytest.approx(24.75, abs=1e-3)


def test_independent_pairs_cost_fifty_more_than_identical_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, 16, generator=generator) for _ in range(2))
    same, other = weighted(a, a), weighted(a, b)
    assert other - same == pytest.approx(50, rel=0.03)


@pytest.mark.parametrize(("rows", "floor"), [(256, 6.0), (1024, 1.5)])
def test_few_rows_leave_a_floor_of_covariance(rows: int, floor: float) -> None:
    """2 (d - 1) / (n - 1) of independent features, d 768, however good they are; here n counts images times cells."""
    z = torch.randn(8, rows // 8, 768, generator=torch.Generator().manual_seed(0))
    assert float(vicreg(z, z).covariance) == pytest.approx(floor * 7 / 8, rel=0.05)  # an eighth of the variance goes with each cell's mean


def test_redundant_features_are_punished_by_the_covariance() -> None:
    one = torch.randn(32, 48, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 16)
    assert float(vicreg(one, one).covariance) > 20


def test_fewer_than_four_images_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="at least 4; this batch has 3"):
        vicreg(torch.randn(3, 48, 4), torch.randn(3, 48, 4))


def test_views_without_a_common_cell_are_refused() -> None:
    few = layouts.layout(RunConfig(overlap=0.05))
    with pytest.raises(BadInput, match="overlap: neighbours of these 5 views share no whole cell of a 2 x 2 grid"):
        OverlapPairs(few, 2)
    assert has_pairs(few, 4)
    assert not has_pairs(few, 2)
    assert not has_pairs(Layout(views.ring(4, 90.0)), 14)


@pytest.mark.parametrize("strategy", ["cubemap", "resize"])
def test_stage_vision_refuses_views_that_do_not_overlap(strategy: str) -> None:
    with pytest.raises(BadInput, match=rf"crop_strategy is {strategy}: stage vision compares"):
        parse({"crop_strategy": strategy})


def test_each_loss_of_the_schema_is_registered_and_each_registered_one_can_be_chosen() -> None:
    assert set(LOSSES) == set(get_args(RunConfig.model_fields["overlap_loss"].annotation))
