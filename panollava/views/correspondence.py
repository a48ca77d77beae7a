"""Where the cells of one view lie in another: what features may be compared with each other."""

import math

import numpy as np
import numpy.typing as npt

from panollava.layouts import View
from panollava.views.geometry import Doubles, Floats, rotation, tangent

# G cells per grid side
EXACT = 1e-9
"""Cell centres that meet the outermost ones exactly are valid, however the arithmetic rounds."""
MASK = npt.NDArray[np.bool_]


def correspond(a: View, b: View, grid: int) -> tuple[Floats, MASK]:
    """Where the cells of view b lie in view a. Raises ValueError for views of different projections.

    Returns (u, v) of each cell centre, float32 [G, G, 2] in [-1, 1] with u to the right and v down, as grid_sample takes it with
    align_corners=False, and which of them lie between cell centres of view a, so that nothing is made up, bool [G, G].
    """
    if a.projection != b.projection:
        raise ValueError(f"A view that is {a.projection} and one that is {b.projection} have no common grid.")
    centres = (np.arange(grid) + 0.5) / grid * 2 - 1
    u, v = np.meshgrid(centres, centres)
    uv, ahead = (_homography if a.projection == "perspective" else _columns)(a, b, u, v)
    valid = ahead & (np.abs(uv) <= 1 - 1 / grid + EXACT).all(axis=-1)
    return uv.astype(np.float32), valid


def _homography(a: View, b: View, u: Doubles, v: Doubles) -> tuple[Doubles, MASK]:
    """Rays of b as a sees them, R_a^T R_b K_b^-1 p. Between level views columns map to columns, but not linearly; rows scale with 1 / depth."""
    rays = np.stack([u * tangent(b.fov), -v * tangent(b.fov), np.ones_like(u)], axis=-1)  # x right, y up, z ahead
    x, y, z = np.moveaxis(rays @ (rotation(a).T @ rotation(b)).T, -1, 0)
    ahead = z > 1e-12
    depth = np.where(ahead, z, np.inf) * tangent(a.fov)
    return np.stack([x / depth, -y / depth], axis=-1), ahead


def _columns(a: View, b: View, u: Doubles, v: Doubles) -> tuple[Doubles, MASK]:
    """Columns of equirectangular crops are longitudes, so they correspond linearly, and rows are the same."""
    apart = u * b.fov / 2 + math.remainder(b.yaw - a.yaw, 360)
    nearest = np.where(np.abs(apart) > 180, apart - np.copysign(360, apart), apart)
    return np.stack([nearest / (a.fov / 2), v], axis=-1), np.ones_like(u, bool)
