"""Features of the same direction in neighbouring views, paired by where the cells of one view lie in the other.

Legend: U panoramas, V views, G grid side, D width, M pairs a panorama: all cells of all views that a neighbour sees too, in both directions.
"""

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from panollava import views
from panollava.errors import BadInput
from panollava.stages import FEWEST as FEWEST
from panollava.views.geometry import angles

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column of the cells around a direction, from the upper left one."""
Ints = npt.NDArray[np.int64]


class OverlapPairs(nn.Module):
    """Patch features [U, V, G, G, D] -> two tensors [U, M, D]: row m of both shows the same direction."""

    view: Tensor  # int64 [M], the view that the cell is in; sorted
    here: Tensor  # int64 [M], the cell among all V*G*G
    there: Tensor  # int64 [4, M], the cells around the same direction in the neighbour
    shares: Tensor  # [4, M, 1], what each of them contributes: bilinear
    direction: Tensor  # [M, 3], unit vectors

    def __init__(self, layout: views.Layout, grid: int) -> None:
        super().__init__()
        pairs = _all_shared(layout, grid)
        if not any(each.here.size for each in pairs):
            raise BadInput(f"overlap: neighbours of these {len(layout.views)} views share no whole cell of a {grid} x {grid} grid; ask for more.")
        self.cell_angle = max(_height(layout.views[view]) for pair in layout.neighbours for view in pair) / grid
        """Degrees from the middle of a cell to the next, about."""
        for name, parts in zip(vars(pairs[0]), zip(*map(astuple, pairs), strict=True), strict=True):
            self.register_buffer(name, torch.from_numpy(np.concatenate(parts, axis=-2 if name == "direction" else -1)), persistent=False)
        self.shares = self.shares[..., None]

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        cells = grid.flatten(1, 3).float()  # [U, V*G*G, D]
        around = [cells.index_select(1, corner) * share for corner, share in zip(self.there, self.shares, strict=True)]
        return cells.index_select(1, self.here), around[0] + around[1] + around[2] + around[3]


def has_pairs(layout: views.Layout, grid: int) -> bool:
    return any(each.here.size for each in _all_shared(layout, grid))


@dataclass(frozen=True)
class _Shared:
    """Cells of one view that another sees too. Names and last axes as in OverlapPairs."""

    view: Ints
    here: Ints
    there: Ints
    shares: views.Floats
    direction: views.Floats


def _all_shared(layout: views.Layout, grid: int) -> list[_Shared]:
    """Of each view with each of its neighbours, in the order of the views."""
    directed = sorted({pair for a, b in layout.neighbours for pair in ((a, b), (b, a))})
    return [_shared(layout, mine, other, grid) for mine, other in directed]


def _shared(layout: views.Layout, mine: int, other: int, grid: int) -> _Shared:
    view, size = layout.views[mine], grid * grid
    uv, valid = views.correspond(layout.views[other], view, grid)
    where = np.clip(((uv[valid].astype(np.float64) + 1) * grid - 1) / 2, 0, grid - 1)  # column and row there, whole at cell centres, [N, 2]
    column, row = np.clip(np.floor(where), 0, max(grid - 2, 0)).astype(np.int64).T
    right, down = where[:, 0] - column, where[:, 1] - row
    there = [np.minimum(row + y, grid - 1) * grid + np.minimum(column + x, grid - 1) for y, x in CORNERS]
    shares = [(down if y else 1 - down) * (right if x else 1 - right) for y, x in CORNERS]
    here = np.flatnonzero(valid)
    return _Shared(
        view=np.full(len(here), mine),
        here=mine * size + here,
        there=other * size + np.stack(there),
        shares=np.stack(shares).astype(np.float32),
        direction=_directions(view, grid)[here],
    )


def _directions(view: views.View, grid: int) -> views.Floats:
    """Unit vectors of the cell centres of a view: x right, y up, z ahead of the panorama's middle. [G*G, 3]"""
    centres = (np.arange(grid) + 0.5) / grid * 2 - 1
    longitude, latitude = angles(view, *np.meshgrid(centres, centres))
    longitude = longitude + np.radians(view.yaw)
    vectors = [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)]
    return np.stack(vectors, -1).reshape(-1, 3).astype(np.float32)


def _height(view: views.View) -> float:
    return view.fov if view.projection == "perspective" else 180.0


def evenly(count: int, most: int) -> Tensor:
    """At most `most` of 0 ... count - 1, evenly spaced: all, where they are no more."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
