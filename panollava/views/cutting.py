"""Pixels of views, fast: what `reference` gives, by OpenCV with cached maps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from panollava.layouts import Layout, View
from panollava.views.geometry import Floats, Image, pad, pixels, tangent

# H, W panorama, V views, S pixels per view side, N = S * supersample
LONGEST = 32_000
"""OpenCV's maps count in 16 bits."""


@dataclass(frozen=True, eq=False)
class Maps:
    """Where samples are in the rows `top` to `bottom` of a padded panorama, as cv2.remap takes it.

    Columns and rows [R, C], exact; or whole ones [R, C, 2] and their fractions in steps of 1/32 [R, C], which is faster.
    """

    first: Floats | npt.NDArray[np.int16]
    second: Floats | npt.NDArray[np.uint16]
    top: int
    bottom: int

    @classmethod
    def exact(cls, columns: Floats, rows: Floats) -> "Maps":
        """From places in the whole padded panorama: rows that nothing looks at need no padding."""
        top = int(rows.min())
        return cls(columns, rows - np.float32(top), top, int(rows.max()) + 2)

    @classmethod
    def fixed(cls, whole: npt.NDArray[np.int16], fraction: npt.NDArray[np.uint16]) -> "Maps":
        """The same, from what cv2.convertMaps gives."""
        top = int(whole[..., 1].min())
        return cls(whole - np.array([0, top], np.int16), fraction, top, int(whole[..., 1].max()) + 2)


def project(panorama: Image, maps: Maps) -> Image:
    """Bilinear samples of a panorama at the places of the maps. uint8 [H, W, 3] -> uint8 [R, C, 3]."""
    return np.asarray(cv2.remap(pad(panorama, maps.top, maps.bottom), maps.first, maps.second, cv2.INTER_LINEAR), np.uint8)


class Cutter:
    """Cuts panoramas into the views of a layout. Safe to share between threads; the maps are computed once per panorama size."""

    def __init__(self, views: Layout | Sequence[View], size: int, supersample: int = 2) -> None:
        """`supersample`: samples a side of which each pixel is the mean. One is enough for a panorama that was decoded small, and faster."""
        self.views = views.views if isinstance(views, Layout) else tuple(views)
        self.size = size
        self._parts = list(_parts(self.views, size * supersample))
        self.width = max(part.width for part in self._parts)
        """Panorama columns that the views can show; a wider panorama is shrunk to this, so decoding less than this loses detail."""

    def __call__(self, panorama: Image) -> Image:
        """uint8 [H, W, 3] -> uint8 [V, S, S, 3]."""
        cut = np.empty((len(self.views), self.size, self.size, 3), np.uint8)
        for part in self._parts:
            cut[list(part.places)] = part.cut(panorama, self.size)
        return cut


@dataclass(frozen=True)
class _Part:
    """The views of one projection: where they stand among all, and the most columns and rows of a panorama that they can show."""

    places: tuple[int, ...]
    views: tuple[View, ...]
    n: int
    width: int
    height: int

    def cut(self, panorama: Image, size: int) -> Image:
        """uint8 [H, W, 3] -> uint8 [V, S, S, 3]."""
        shrunk = self._shrink(panorama)
        height, width = shrunk.shape[:2]
        drawn = [_averaged(project(shrunk, maps), size) for maps in _maps(self.views, self.n, width, height)]
        return np.concatenate(drawn).reshape(-1, size, size, 3)

    def _shrink(self, panorama: Image) -> Image:
        """Average down to what the views need: faster, and bilinear sampling skips no pixels. Never enlarges."""
        height, width = panorama.shape[:2]
        size = (min(width, self.width), min(height, self.height))
        if size == (width, height):
            return panorama
        return np.asarray(cv2.resize(panorama, size, interpolation=cv2.INTER_AREA), np.uint8)


def _parts(views: tuple[View, ...], n: int) -> Iterator[_Part]:
    for projection in dict.fromkeys(view.projection for view in views):
        places = tuple(place for place, view in enumerate(views) if view.projection == projection)
        chosen = tuple(views[place] for place in places)
        fov = min(view.fov for view in chosen)
        # A multiple of the directions, so that one turn of a ring is a whole number of columns.
        whole = math.lcm(len({view.yaw for view in chosen}), 2)
        ideal = 2 * math.pi * n / (2 * tangent(fov)) if projection == "perspective" else n * 360 / fov
        width = max(1, min(round(ideal / whole), LONGEST // whole)) * whole
        yield _Part(places, chosen, n, width, width // 2 if projection == "perspective" else n)


def _averaged(column: Image, size: int) -> Image:
    """Views one above the other, [V*N, N, 3] -> [V*S, S, 3]."""
    views = column.shape[0] // column.shape[1]
    return np.asarray(cv2.resize(column, (size, views * size), interpolation=cv2.INTER_AREA), np.uint8)


@lru_cache(maxsize=8)
def _maps(views: tuple[View, ...], n: int, width: int, height: int) -> tuple[Maps, ...]:
    """Maps of views one above the other, as many at once as OpenCV can take. [V*N, N] each"""
    at_once = max(1, LONGEST // n)
    return tuple(_placed(views[start : start + at_once], n, width, height) for start in range(0, len(views), at_once))


def _placed(views: tuple[View, ...], n: int, width: int, height: int) -> Maps:
    columns, rows = [], []
    for view in views:
        column, row = pixels(replace(view, yaw=0), n, width, height)
        # 1/1024 pixel is exact in float32: turning by whole columns keeps every fraction, so a rolled panorama gives the same views.
        columns.append((np.round(column * 1024) / 1024 - 1 + view.yaw / 360 * width) % width + 1)
        rows.append(row)
    return Maps.exact(np.concatenate(columns).astype(np.float32), np.concatenate(rows).astype(np.float32))
