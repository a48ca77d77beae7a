"""Cut a panorama into perspective views on a closed ring, and say where neighbouring views see the same thing.

Pure geometry on arrays: no files, no model, no torch. A panorama is equirectangular and shows the whole sphere, whatever its
aspect: longitude 0 at the image centre and + to the right, latitude + up.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

# H, W panorama, V views, S pixels per view side, N = S * supersample, G cells per grid side
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Where a square perspective view looks, in degrees: yaw + to the right, pitch + up, fov from edge to edge."""

    yaw: float
    pitch: float
    fov: float


def ring(views: int, fov: float) -> tuple[View, ...]:
    """`views` level views once around, to the right from the front; the last one's neighbour is the first."""
    return tuple(View(360 * k / views, 0.0, fov) for k in range(views))


def footprint(view: View, n: int) -> Doubles:
    """What the view shows, as points on its edge: longitude in [-180, 180) and latitude in degrees, from the top left corner clockwise.

    Each side has `n` points, evenly spaced in the view; the last point's neighbour is the first. [4n, 2]
    """
    along, end = (np.arange(n) / n * 2 - 1) * _tangent(view.fov), np.full(n, _tangent(view.fov))
    x, y = np.concatenate([along, end, -along, -end]), np.concatenate([end, -along, -end, along])
    longitude, latitude = _angles(x, y, view.pitch)
    return np.stack([(np.degrees(longitude) + view.yaw + 180) % 360 - 180, np.degrees(latitude)], axis=-1)


class Cutter:
    """Cuts panoramas into the views of a ring. Safe to share between threads; the maps are computed once per panorama size."""

    def __init__(self, ring: tuple[View, ...], size: int, supersample: int = 2) -> None:
        self.ring, self.size, self._n = ring, size, size * supersample
        whole = math.lcm(len(ring), 2)
        ideal = 2 * math.pi * self._n / (2 * _tangent(min(view.fov for view in ring)))
        self.width = max(1, round(ideal / whole)) * whole
        """Panorama columns that the views can show; a wider panorama is shrunk to this, so decoding less than this loses detail."""

    def __call__(self, panorama: Image) -> Image:
        """uint8 [H, W, 3] -> uint8 [V, S, S, 3]."""
        panorama = self._shrink(panorama)
        height, width = panorama.shape[:2]
        padded = _pad(panorama)
        views = [cv2.remap(padded, *maps, cv2.INTER_LINEAR) for maps in _maps(self.ring, self._n, width, height)]
        return np.stack([cv2.resize(view, (self.size, self.size), interpolation=cv2.INTER_AREA) for view in views]).astype(np.uint8, copy=False)

    def _shrink(self, panorama: Image) -> Image:
        """Average down to the width the views need: faster, and bilinear sampling skips no pixels. Never enlarges."""
        height, width = panorama.shape[:2]
        if width <= self.width:
            return panorama
        size = (self.width, min(height, self.width // 2))
        return cv2.resize(panorama, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def reference(panorama: Image, view: View, size: int) -> Floats:
    """What `Cutter` approximates: plain bilinear samples of the full panorama, one per pixel. uint8 [H, W, 3] -> float32 [S, S, 3]."""
    height, width = panorama.shape[:2]
    column, row = _pixels(view, size, width, height)
    padded = _pad(panorama).astype(np.float64)
    x, y = np.floor(column).astype(int), np.floor(row).astype(int)
    right, down = (column - x)[..., None], (row - y)[..., None]
    upper = padded[y, x] * (1 - right) + padded[y, x + 1] * right
    lower = padded[y + 1, x] * (1 - right) + padded[y + 1, x + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def overlap(grid: int, fov: float, stride: float) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Where the cells of view k+1 lie in view k, for level views of `fov` degrees that are `stride` degrees apart.

    Returns (u, v) of each cell centre, float32 [G, G, 2] in [-1, 1] with u to the right and v down, as grid_sample takes it with
    align_corners=False, and which of them lie between cell centres of view k, so that nothing is made up, bool [G, G].
    """
    tangent, angle = _tangent(fov), math.radians(stride)
    centres = (np.arange(grid) + 0.5) / grid * 2 - 1
    u, v = np.meshgrid(centres, centres)
    depth = math.cos(angle) - u * tangent * math.sin(angle)  # of the cell's ray along the axis of view k; <= 0 is behind it
    ahead = np.where(depth > 0, depth, np.inf)
    # Columns map to columns, but not linearly; rows scale with 1 / depth.
    uv = np.stack([(u * tangent * math.cos(angle) + math.sin(angle)) / (tangent * ahead), v / ahead], axis=-1)
    valid = (depth > 0) & (np.abs(uv) <= 1 - 1 / grid).all(axis=-1)
    return uv.astype(np.float32), valid


def _tangent(fov: float) -> float:
    return math.tan(math.radians(fov / 2))


def _angles(x: Doubles, y: Doubles, pitch: float) -> tuple[Doubles, Doubles]:
    """Longitude and latitude, radians, of the rays through (x right, y up) at depth 1 of a view of yaw 0; `pitch` is in degrees."""
    angle = math.radians(pitch)
    up, ahead = y * math.cos(angle) + math.sin(angle), math.cos(angle) - y * math.sin(angle)
    return np.arctan2(x, ahead), np.arctan2(up, np.hypot(x, ahead))


def _pixels(view: View, size: int, width: int, height: int) -> tuple[Doubles, Doubles]:
    """Column in [0, W] and row in [0, H] of the padded panorama behind each pixel centre of the view, both [S, S]."""
    centres = ((np.arange(size) + 0.5) / size * 2 - 1) * _tangent(view.fov)
    x, y = np.meshgrid(centres, -centres)
    longitude, latitude = _angles(x, y, view.pitch)
    column = (longitude / (2 * math.pi) + 0.5 + view.yaw / 360) * width - 0.5
    return column % width, (0.5 - latitude / math.pi) * height + 0.5


def _pad(panorama: Image) -> Image:
    """[H, W, 3] -> [H+2, W+2, 3]: the first columns again at the end, and beyond each pole its row seen from the other side."""
    half = panorama.shape[1] // 2
    tall = np.concatenate([np.roll(panorama[:1], half, axis=1), panorama, np.roll(panorama[-1:], half, axis=1)])
    return np.concatenate([tall, tall[:, :2]], axis=1)


@lru_cache(maxsize=4)
def _maps(ring: tuple[View, ...], size: int, width: int, height: int) -> tuple[tuple[Floats, Floats], ...]:
    """Column and row maps of each view, for cv2.remap on the padded panorama."""
    maps = []
    for view in ring:
        column, row = _pixels(replace(view, yaw=0), size, width, height)
        # 1/1024 pixel is exact in float32: turning by whole columns keeps every fraction, so a rolled panorama gives the same views.
        column = (np.round(column * 1024) / 1024 + view.yaw / 360 * width) % width
        maps.append((column.astype(np.float32), row.astype(np.float32)))
    return tuple(maps)
