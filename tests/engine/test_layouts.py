"""Which views each crop strategy makes, which of them are neighbours, and what a run may ask for."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from panollava.config import RunConfig, parse
from panollava.errors import BadInput
from panollava.layouts import MOST_VIEWS, STRATEGIES, Layout, View, layout
from panollava.views import Cutter, Image, correspond, reference

CONFIGS: list[dict[str, Any]] = [
    {},
    {"fov": 75, "overlap": 0.4},
    {"view_count": 12},
    {"crop_strategy": "anyres_e2p"},
    {"crop_strategy": "anyres_e2p", "pitches": (30,), "fov": 100, "overlap": 0},
    {"crop_strategy": "cubemap"},
    {"crop_strategy": "cubemap", "cube_faces": 4},
    {"crop_strategy": "sliding_window", "fov": 120, "overlap": 0.25},
    {"crop_strategy": "resize"},
]


def of(**config: Any) -> Layout:
    return layout(RunConfig(**config))


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_number_of_views_is_known_before_they_are_made(config: dict[str, Any]) -> None:
    assert RunConfig(**config).views == len(of(**config).views)


def test_every_strategy_is_tried_here() -> None:
    assert {config.get("crop_strategy", "e2p") for config in CONFIGS} == set(STRATEGIES)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_rings_are_closed_and_step_to_the_right(config: dict[str, Any]) -> None:
    """Every view with a neighbour to its right is one to its left, and the steps of a ring make one turn."""
    found = of(**config)
    assert sorted(a for a, _ in found.neighbours) == sorted(b for _, b in found.neighbours)
    for pitch in {found.views[a].pitch for a, _ in found.neighbours}:
        ring = [(found.views[a], found.views[b]) for a, b in found.neighbours if found.views[a].pitch == pitch]
        assert all(b.pitch == pitch and b.projection == a.projection for a, b in ring)
        assert sum((b.yaw - a.yaw) % 360 for a, b in ring) == pytest.approx(360)


def test_the_default_is_eight_views_in_a_ring() -> None:
    found = of()
    assert found.views == tuple(View(45.0 * k, 0.0, 90.0) for k in range(8))
    assert found.neighbours == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 0))


def test_the_whole_comes_first_and_has_no_neighbour_and_rows_pair_within_themselves() -> None:
    found = of(crop_strategy="anyres_e2p", pitches=(-40, 40), view_count=9)
    assert found.views[0] == View(0, 0, 360, "equirectangular")
    assert [view.pitch for view in found.views[1:]] == [-40] * 9 + [40] * 9
    assert found.neighbours[8:10] == ((9, 1), (10, 11))
    assert len(found.neighbours) == 18


def test_a_cube_looks_everywhere_once() -> None:
    found = of(crop_strategy="cubemap")
    assert [(view.yaw, view.pitch, view.fov) for view in found.views] == [
        (0, 0, 90), (90, 0, 90), (180, 0, 90), (270, 0, 90), (0, 90, 90), (0, -90, 90),
    ]  # fmt: skip
    assert of(crop_strategy="cubemap", cube_faces=4).views == found.views[:4]
    assert found.neighbours == ()


@pytest.mark.parametrize(("fov", "overlap", "paired"), [(90, 0, False), (100, 0, True), (120, 0, False), (90, 0.01, True)])
def test_views_that_only_touch_are_no_neighbours(fov: float, overlap: float, paired: bool) -> None:
    for strategy in ("e2p", "sliding_window"):
        assert bool(of(crop_strategy=strategy, fov=fov, overlap=overlap).neighbours) == paired


@pytest.mark.parametrize(
    ("config", "field", "why"),
    [
        ({"overlap": 0}, "overlap", "needs an overlap above 0"),
        ({"crop_strategy": "sliding_window", "overlap": 0}, "overlap", "needs an overlap above 0"),
        ({"crop_strategy": "cubemap"}, "crop_strategy", "no views of cubemap overlap; use one of e2p, anyres_e2p, sliding_window"),
        ({"crop_strategy": "resize"}, "crop_strategy", "no views of resize overlap"),
        ({"view_count": 6}, "view_count", "use at least 8 or overlap 0.33."),
        ({"view_count": 3}, "view_count", "use at least 8."),
        ({"fov": 1e-9}, "overlap", "at most 360"),
        ({"overlap": 0.9999999}, "overlap", "at most 360"),
        ({"fov": 5, "overlap": 0.5, "crop_strategy": "anyres_e2p"}, "overlap", "that makes 433 views"),
        ({"crop_strategy": "cubemap", "fov": 80, "stage": "finetune"}, "fov", "it counts only where crop_strategy is e2p or"),
        ({"pitches": [10]}, "pitches", "it counts only where crop_strategy is anyres_e2p"),
        ({"crop_strategy": "anyres_e2p", "pitches": [91]}, "pitches.0", "less than or equal to 90"),
        ({"crop_strategy": "anyres_e2p", "pitches": "0,,3"}, "pitches.1", "valid number"),
        ({"crop_strategy": "anyres_e2p", "pitches": [30, 0, 30]}, "pitches", "each of them once"),
        ({"crop_strategy": "fisheye"}, "crop_strategy", "Input should be 'e2p', 'anyres_e2p', 'cubemap', 'sliding_window' or 'resize'"),
    ],
    ids=str,
)  # fmt: skip
def test_views_that_cannot_be_are_refused_with_the_reason(config: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(config)
    assert why in dict(refused.value.fields)[field]


@pytest.mark.parametrize(
    "config", [{"view_count": 6, "overlap": 0.33}, {"crop_strategy": "cubemap", "stage": "resampler,finetune"}, {"overlap": 0, "fov": 100}]
)
def test_views_that_can_be_are_not(config: dict[str, Any]) -> None:
    parse(config)


def test_too_many_views_are_never_made() -> None:
    assert RunConfig(fov=1e-9).views > 1e11
    with pytest.raises(BadInput, match=f"at most {MOST_VIEWS}"):
        of(fov=1e-9)


@pytest.mark.parametrize("config", [config for config in CONFIGS if of(**config).neighbours], ids=str)
@pytest.mark.parametrize("scale", [1, 3])
def test_rolling_the_panorama_by_one_stride_permutes_the_views_of_every_ring(config: dict[str, Any], scale: int) -> None:
    found, rest = of(**config), of(**config | {"crop_strategy": "e2p"})
    ring, cutter = len(rest.views), Cutter(found, 16)
    erp = noise(cutter.width * scale // 2, cutter.width * scale)
    before, after = cutter(erp), cutter(np.roll(erp, -cutter.width * scale // ring, axis=1))
    for a, b in found.neighbours:
        np.testing.assert_array_equal(after[a], before[b])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_views_show_what_the_reference_shows(config: dict[str, Any]) -> None:
    """A slope of colours around the sphere, on which averaging and sampling agree to a few grey levels."""
    longitude, latitude = np.meshgrid((np.arange(1024) + 0.5) / 1024 * 2 * np.pi - np.pi, np.pi / 2 - (np.arange(512) + 0.5) / 512 * np.pi)
    sphere = np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1)
    erp = np.round((sphere + 1) * 127.5).astype(np.uint8)
    found = of(**config)
    exact = np.stack([reference(erp, view, 24) for view in found.views])
    assert np.abs(Cutter(found, 24)(erp) - exact).max() < 4


def test_the_whole_as_one_view_is_the_panorama_made_square() -> None:
    erp = noise(64, 128)
    square = Cutter(of(crop_strategy="resize"), 32)(erp)[0]
    assert np.abs(square.astype(int) - cv2.resize(erp, (32, 32), interpolation=cv2.INTER_AREA)).max() <= 1


def test_a_crop_wraps_around_the_seam() -> None:
    erp = np.zeros((64, 128, 3), np.uint8)
    erp[:, :16] = erp[:, -16:] = 200
    crop = Cutter([View(180, 0, 90, "equirectangular")], 16)(erp)
    np.testing.assert_array_equal(crop, 200)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 700), (700, 3), (50, 40_000)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_panoramas_of_odd_sizes_are_cut_all_the_same(strategy: str, shape: tuple[int, int]) -> None:
    views = Cutter(of(crop_strategy=strategy), 16)(np.full((*shape, 3), 9, np.uint8))
    np.testing.assert_array_equal(views, 9)


def test_as_many_pixels_as_are_asked_for_are_cut() -> None:
    """OpenCV's remap takes fewer than 32,768 rows at a time, and no wider pictures."""
    found = of(view_count=200, overlap=0.9)
    assert Cutter(found, 100)(np.full((32, 64, 3), 5, np.uint8)).shape == (200, 100, 100, 3)
    narrow = [View(0, 0, 0.5), View(0, 0, 90)]
    assert Cutter(narrow, 300)(np.full((16, 40_000, 3), 5, np.uint8)).max() == 5


# Correspondence

PAIRS = [
    (View(0, 0, 90), View(45, 0, 90)),
    (View(350, 30, 90), View(20, 30, 90)),
    (View(10, -80, 100), View(50, -80, 100)),
    (View(0, 90, 90), View(90, 90, 90)),
    (View(0, 0, 90), View(10, 20, 60)),
]


def rays(view: View, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """By successive turns about the axes: no matrix that the code has too."""
    t, p, a = np.tan(np.radians(view.fov / 2)), np.radians(view.pitch), np.radians(view.yaw)
    x, y, z = u * t, -v * t, np.ones_like(u)
    y, z = y * np.cos(p) + z * np.sin(p), z * np.cos(p) - y * np.sin(p)
    x, z = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
    found = np.stack([x, y, z], axis=-1)
    return np.asarray(found / np.linalg.norm(found, axis=-1, keepdims=True))


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=str)
def test_corresponding_cells_of_pitched_views_look_in_the_same_direction(a: View, b: View) -> None:
    uv, valid = correspond(a, b, 12)
    centres = (np.arange(12) + 0.5) / 6 - 1
    u, v = np.meshgrid(centres, centres)
    assert valid.any()
    there = rays(a, uv[..., 0].astype(float), uv[..., 1].astype(float))
    np.testing.assert_allclose(there[valid], rays(b, u, v)[valid], atol=1e-6)


def test_two_views_of_the_zenith_are_turns_of_each_other() -> None:
    uv, valid = correspond(View(0, 90, 90), View(90, 90, 90), 8)
    assert valid.all()
    np.testing.assert_allclose(uv, np.rot90(correspond(View(0, 90, 90), View(0, 90, 90), 8)[0], -1), atol=1e-6)


@pytest.mark.parametrize("yaw", [0, 180, 350])
def test_columns_of_crops_correspond_linearly_also_across_the_seam(yaw: float) -> None:
    a = View(yaw, 0, 90, "equirectangular")
    uv, valid = correspond(a, replace(a, yaw=(yaw + 45) % 360), 8)
    centres = (np.arange(8) + 0.5) / 4 - 1
    np.testing.assert_allclose(uv, np.stack(np.meshgrid(centres + 1, centres), axis=-1), atol=1e-6)
    assert valid[:, :4].all() and not valid[:, 4:].any()


def test_crops_that_do_not_meet_share_nothing() -> None:
    assert not correspond(View(0, 0, 90, "equirectangular"), View(180, 0, 90, "equirectangular"), 8)[1].any()


def test_views_of_different_projections_do_not_correspond() -> None:
    with pytest.raises(ValueError, match="no common grid"):
        correspond(View(0, 0, 90), View(0, 0, 90, "equirectangular"), 8)
