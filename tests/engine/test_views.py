"""The geometry of views: what a view shows, that the ring turns with the panorama, and which cells of neighbours see the same ray."""

import math

import cv2
import numpy as np
import numpy.typing as npt
import py360convert
import pytest

from panollava.views import Cutter, Floats, Image, View, correspond, footprint, reference, ring


def texture(height: int = 64, width: int = 128, detail: int = 4) -> Image:
    """Smooth noise, different everywhere, without a jump at the seam."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // detail, width // detail, 3), dtype=np.uint8)
    tiled = np.concatenate([coarse, coarse, coarse], axis=1)
    enlarged = cv2.resize(tiled, (3 * width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged[:, width : 2 * width], np.uint8)


@pytest.fixture
def exact_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """py360convert rounds its maps to 1/32 pixel when it finds OpenCV; without, it samples exactly."""
    monkeypatch.setattr("py360convert.utils.cv2", None)
    py360convert.utils.EquirecSampler.from_perspective.cache_clear()


@pytest.mark.usefixtures("exact_oracle")
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (45, 0), (-90, 0), (180, 0), (-180, 0), (170, 0), (30, 40), (180, -75), (-100, 90)])
@pytest.mark.parametrize("fov", [60, 90])
def test_the_reference_agrees_with_py360convert(yaw: float, pitch: float, fov: float) -> None:
    erp, size = texture(60, 120), 24
    # Theirs puts pixel centres, ours pixel edges, at the border of the field of view.
    theirs_fov = math.degrees(2 * math.atan(math.tan(math.radians(fov / 2)) * (size - 1) / size))
    theirs = py360convert.e2p(erp.astype(np.float64), theirs_fov, yaw, pitch, (size, size))
    assert np.abs(reference(erp, View(yaw, pitch, fov), size) - theirs).max() < 1e-3


def test_yaw_180_and_minus_180_are_the_same_view() -> None:
    erp = texture()
    np.testing.assert_allclose(reference(erp, View(180, 0, 90), 16), reference(erp, View(-180, 0, 90), 16), atol=1e-3)


def test_the_ring_looks_to_the_right_first() -> None:
    erp = np.zeros((64, 128, 3), np.uint8)
    erp[:, 96] = 255  # longitude 90 degrees
    views = Cutter(ring(4, 80), 8)(erp)
    assert [bool(view.max() > 20) for view in views] == [False, True, False, False]


@pytest.mark.parametrize("views", [3, 5, 8])
@pytest.mark.parametrize("scale", [1, 3])
def test_rolling_the_panorama_permutes_the_views(views: int, scale: int) -> None:
    cutter = Cutter(ring(views, 90), 16)
    erp = texture(cutter.width * scale // 2, cutter.width * scale, detail=1)
    turned = np.roll(erp, -cutter.width * scale // views, axis=1)
    np.testing.assert_array_equal(cutter(turned), np.roll(cutter(erp), -1, axis=0))


def test_rolling_by_a_fraction_of_a_column_permutes_within_a_grey_level() -> None:
    cutter = Cutter(ring(8, 90), 16)
    wide = texture(cutter.width * 4, cutter.width * 8, detail=32)
    turned_wide = np.roll(wide, -cutter.width, axis=1)
    erp, turned = (np.asarray(cv2.resize(image, (300, 150), interpolation=cv2.INTER_AREA), np.uint8) for image in (wide, turned_wide))
    assert 300 % 8 != 0
    difference = np.abs(cutter(turned).astype(int) - np.roll(cutter(erp), -1, axis=0))
    assert difference.max() <= 2 and difference.mean() < 0.5


def test_a_wide_panorama_is_averaged_and_not_skipped_over() -> None:
    """Columns that alternate between black and white are grey from afar; bilinear samples of the full width would be stripes."""
    erp = np.zeros((1024, 2048, 3), np.uint8)
    erp[:, ::2] = 255
    views = Cutter(ring(8, 90), 16)(erp)
    assert views.min() >= 120 and views.max() <= 135


def test_the_cutter_stays_close_to_the_reference_on_smooth_pictures() -> None:
    erp, look = texture(512, 1024, detail=64), ring(8, 90)
    views = Cutter(look, 32)(erp)
    exact = np.stack([reference(erp, view, 32) for view in look])
    assert np.abs(views - exact).max() < 10
    assert np.abs(views - exact).mean() < 0.7


def test_pitched_views_reach_over_the_pole() -> None:
    erp = np.full((64, 128, 3), 77, np.uint8)
    views = Cutter((View(0, 90, 100), View(0, -90, 100), View(180, 60, 100)), 16)(erp)
    np.testing.assert_array_equal(views, 77)


def test_a_small_panorama_is_not_enlarged_and_an_unusual_aspect_is_still_a_sphere() -> None:
    cutter = Cutter(ring(8, 90), 64)
    np.testing.assert_array_equal(cutter(np.full((30, 61, 3), 9, np.uint8)), np.full((8, 64, 64, 3), 9))
    np.testing.assert_array_equal(cutter(np.full((100, 2000, 3), 9, np.uint8)), np.full((8, 64, 64, 3), 9))


def overlap(grid: int, fov: float, stride: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A level view and the one that is `stride` degrees to its right."""
    return correspond(View(0, 0, fov), View(stride, 0, fov), grid)


@pytest.mark.parametrize(("grid", "seen", "between_centres"), [(14, 92, 90), (16, 120, 118)])
def test_half_overlapping_neighbours_share_the_known_number_of_cells(grid: int, seen: int, between_centres: int) -> None:
    """Linear pairing would claim half of them. The outermost two have no neighbour to interpolate with, so they are not valid."""
    uv, valid = overlap(grid, fov=90, stride=45)
    assert uv.shape == (grid, grid, 2)
    assert int((np.abs(uv) <= 1).all(axis=-1).sum()) == seen
    assert int(valid.sum()) == between_centres


def sphere(u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], fov: float, yaw: float) -> npt.NDArray[np.float64]:
    """Direction vectors of normalised view coordinates (u right, v down), in the panorama's frame."""
    t, a = math.tan(math.radians(fov / 2)), math.radians(yaw)
    x, y = u * t, -v * t
    rays = np.stack([x * math.cos(a) + math.sin(a), y, -x * math.sin(a) + math.cos(a)], axis=-1)
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True), np.float64)


def longitudes(grid: int, fov: float, yaw: float) -> npt.NDArray[np.float64]:
    centres = (np.arange(grid) + 0.5) / grid * 2 - 1
    return np.degrees(np.arctan(centres * math.tan(math.radians(fov / 2)))) + yaw


@pytest.mark.parametrize(("fov", "stride"), [(90, 45), (90, 60), (100, 40), (60, 30)])
def test_paired_cells_look_in_the_same_direction(fov: float, stride: float) -> None:
    grid = 14
    uv, valid = overlap(grid, fov, stride)
    centres = (np.arange(grid) + 0.5) / grid * 2 - 1
    u, v = np.meshgrid(centres, centres)
    seen_by_next = sphere(u, v, fov, yaw=stride)
    seen_here = sphere(uv[..., 0].astype(float), uv[..., 1].astype(float), fov, yaw=0)
    assert valid.any()
    assert np.abs(seen_by_next - seen_here)[valid].max() < 1e-6  # radians


def test_pairing_columns_linearly_is_degrees_off() -> None:
    right_half_here, left_half_next = (longitudes(14, 90, yaw=0)[7:], longitudes(14, 90, yaw=45)[:7])
    error = np.abs(right_half_here - left_half_next)
    assert error.mean() > 5 and error.max() > 8


def test_views_that_do_not_meet_share_nothing() -> None:
    assert not overlap(14, fov=90, stride=90)[1].any()
    assert not overlap(14, fov=90, stride=180)[1].any()


def test_the_same_thing_is_seen_where_the_overlap_says() -> None:
    """End to end: pixels of neighbouring views agree at the paired positions and not at the linear ones."""
    grid, erp, look = 16, texture(256, 512, detail=16), ring(8, 90)
    views = Cutter(look, grid)(erp).astype(np.float32)
    uv, valid = overlap(grid, 90, 45)
    pixel = ((uv + 1) * grid - 1) / 2
    warped = cv2.remap(views[7], pixel[..., 0].copy(), pixel[..., 1].copy(), cv2.INTER_LINEAR)
    paired = np.abs(warped - views[0])[valid].mean()
    linear = np.abs(views[7][:, 8:] - views[0][:, :8]).mean()
    assert paired < linear / 3


def directions(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Unit vectors (x right, y up, z ahead) of longitudes and latitudes in degrees."""
    longitude, latitude = np.moveaxis(np.radians(points), -1, 0)
    return np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1)


def compass(height: int, width: int) -> Image:
    """A panorama whose colours are the directions of its pixels, each axis from 0 to 255."""
    longitude, latitude = (np.arange(width) + 0.5) / width * 360 - 180, 90 - (np.arange(height) + 0.5) / height * 180
    grid = np.stack(np.meshgrid(longitude, latitude), axis=-1)
    return np.round((directions(grid) + 1) * 127.5).astype(np.uint8)


def test_the_corners_of_a_square_view_of_90_degrees_are_at_45_and_35_degrees() -> None:
    corners = footprint(View(0, 0, 90), 1)
    np.testing.assert_allclose(corners, [[-45, 35.2644], [45, 35.2644], [45, -35.2644], [-45, -35.2644]], atol=1e-4)


@pytest.mark.parametrize("view", [View(0, 0, 90), View(180, 0, 90), View(-100, 35, 60), View(200, -70, 100), View(30, 88, 120)])
def test_a_footprint_is_where_the_outermost_pixels_of_a_view_look(view: View) -> None:
    """Pixel centres at the border of a slightly wider view lie on the edge of this one. A colour step is 0.45 degrees."""
    size = 9
    wider = math.degrees(2 * math.atan(math.tan(math.radians(view.fov / 2)) * size / (size - 1)))
    pixels = reference(compass(512, 1024), View(view.yaw, view.pitch, wider), size) / 127.5 - 1
    border = np.concatenate([pixels[0, :-1], pixels[:-1, -1], pixels[-1, :0:-1], pixels[:0:-1, 0]])
    seen = border / np.linalg.norm(border, axis=-1, keepdims=True)
    apart = np.degrees(np.arccos(np.clip((directions(footprint(view, size - 1)) * seen).sum(axis=-1), -1, 1)))
    assert apart.max() < 0.5


def test_longitudes_of_a_footprint_across_the_seam_stay_on_the_map() -> None:
    longitudes_ = footprint(View(180, 0, 90), 16)[:, 0]
    assert longitudes_.min() >= -180 and longitudes_.max() < 180
    assert (longitudes_ > 130).any() and (longitudes_ < -130).any()
