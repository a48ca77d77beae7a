"""Which views a model is given of every panorama: where each looks, and which of them overlap. Arithmetic only: no arrays, no pixels.

Degrees everywhere. Longitude 0 is the middle of the panorama, + to the right; latitude + up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

from panollava.errors import BadInput

if TYPE_CHECKING:
    from panollava.config import RunConfig

MOST_VIEWS = 360
"""More than one a degree tell a model nothing new, and a slip of the pen would fill the memory."""
FRONT, RIGHT, BACK, LEFT, UP, DOWN = (0, 0), (90, 0), (180, 0), (270, 0), (0, 90), (0, -90)
CLOSE = 1e-6
"""Degrees by which views may miss each other through rounding."""

Projection = Literal["perspective", "equirectangular"]


@dataclass(frozen=True)
class View:
    """What a square view shows: yaw + to the right, pitch + up.

    perspective: a pinhole camera, fov from edge to edge. equirectangular: fov degrees of longitude over the full height, 360 for the whole.
    """

    yaw: float
    pitch: float
    fov: float
    projection: Projection = "perspective"


@dataclass(frozen=True)
class Layout:
    """All views of a panorama, in the order in which the model reads them.

    (a, b) of `neighbours`: view b is the next to the right of view a on its ring, and they overlap. Rings are closed. Empty without overlap.
    """

    views: tuple[View, ...]
    neighbours: tuple[tuple[int, int], ...] = ()


def layout(config: "RunConfig") -> Layout:
    """The layout a run asks for. Raises BadInput for one of more than MOST_VIEWS views."""
    if (views := count(config)) > MOST_VIEWS:
        raise BadInput(f"{views:,} views of every panorama; at most {MOST_VIEWS} make sense.")
    return STRATEGIES[config.crop_strategy].layout(config)


def count(config: "RunConfig") -> int:
    """Views of the layout a run asks for, also where they are too many to be made."""
    return STRATEGIES[config.crop_strategy].count(config)


def ring(views: int, fov: float, pitch: float = 0.0, projection: Projection = "perspective") -> tuple[View, ...]:
    """`views` views once around, to the right from the front; the last one's neighbour is the first."""
    return tuple(View(360 * k / views, pitch, fov, projection) for k in range(views))


def rings(rows: Sequence[tuple[View, ...]], before: tuple[View, ...] = ()) -> Layout:
    """Closed rings one after the other, whose neighbours are paired, behind views that are nobody's neighbours."""
    pairs: list[tuple[int, int]] = []
    start = len(before)
    for row in rows:
        if 360 / len(row) < row[0].fov - CLOSE:
            pairs += [(start + k, start + (k + 1) % len(row)) for k in range(len(row))]
        start += len(row)
    return Layout((*before, *chain.from_iterable(rows)), tuple(pairs))


def around(config: "RunConfig") -> int:
    """Views of one closed ring: as many as asked for, else the smallest count whose overlap is at least the one asked for."""
    return fewest(config.fov, config.overlap) if config.view_count is None else config.view_count


def fewest(fov: float, overlap: float) -> int:
    """Views of the smallest closed ring whose neighbours share at least this much of their angle."""
    return max(1, math.ceil(round(360 / (fov * (1 - overlap)), 9)))  # 360 / (90 * (1 - 0.8)) is 20.000000000000004


def shared(fov: float, views: int) -> float:
    """The share of its angle that each view of a closed ring has in common with the next; negative where they miss each other."""
    return 1 - 360 / views / fov


@dataclass(frozen=True)
class Strategy:
    """One of `crop_strategy`."""

    count: Callable[["RunConfig"], int]
    layout: Callable[["RunConfig"], Layout]


GLOBAL = View(0.0, 0.0, 360.0, "equirectangular")


def _e2p(config: "RunConfig") -> Layout:
    return rings([ring(around(config), config.fov)])


def _anyres_e2p(config: "RunConfig") -> Layout:
    """The whole first, then the tiles, row by row."""
    return rings([ring(around(config), config.fov, pitch) for pitch in config.pitches], before=(GLOBAL,))


def _cubemap(config: "RunConfig") -> Layout:
    faces = (FRONT, RIGHT, BACK, LEFT, UP, DOWN)[: config.cube_faces]
    return Layout(tuple(View(float(yaw), float(pitch), 90.0) for yaw, pitch in faces))


def _sliding_window(config: "RunConfig") -> Layout:
    return rings([ring(around(config), config.fov, projection="equirectangular")])


def _resize(_config: "RunConfig") -> Layout:
    return Layout((GLOBAL,))


STRATEGIES = {
    "e2p": Strategy(around, _e2p),
    "anyres_e2p": Strategy(lambda config: 1 + around(config) * len(config.pitches), _anyres_e2p),
    "cubemap": Strategy(lambda config: config.cube_faces, _cubemap),
    "sliding_window": Strategy(around, _sliding_window),
    "resize": Strategy(lambda _config: 1, _resize),
}
"""By `crop_strategy`."""
