"""Features of the same ray in neighbouring views of a closed ring, paired by the homography between the views.

Legend: U panoramas, V views, G grid side, D width, M pairs a view (both directions together).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panollava import views


class OverlapPairs(nn.Module):
    """Patch features [U, V, G, G, D] -> two tensors [U, V, M, D] that show the same directions."""

    there: Tensor
    here: Tensor

    def __init__(self, ring: tuple[views.View, ...], grid: int) -> None:
        super().__init__()
        stride, fov = 360 / len(ring), ring[0].fov
        before, seen_before = views.overlap(grid, fov, stride)  # where my cells lie in the view before me
        after, seen_after = views.overlap(grid, fov, -stride)
        if not seen_before.any():
            raise ValueError(f"Views of {fov} degrees that are {stride} apart share no whole cell of a {grid} x {grid} grid.")
        self.register_buffer("there", torch.from_numpy(np.stack([before[seen_before], after[seen_after]])), persistent=False)  # [2, M/2, 2]
        cells = torch.arange(grid * grid).view(grid, grid)
        self.register_buffer("here", torch.stack([cells[torch.from_numpy(seen_before)], cells[torch.from_numpy(seen_after)]]), persistent=False)

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        panoramas, count = grid.shape[:2]
        flat = grid.flatten(2, 3)  # [U, V, G*G, D]
        maps = grid.permute(0, 1, 4, 2, 3)  # [U, V, D, G, G]
        mine, theirs = [], []
        for direction, shift in ((0, 1), (1, -1)):  # the ring is closed: rolling pairs the last view with the first
            mine.append(flat[:, :, self.here[direction]])
            neighbour = maps.roll(shift, 1).flatten(0, 1)
            where = self.there[direction].to(neighbour.dtype)[None, None].expand(panoramas * count, 1, -1, -1)
            sampled = F.grid_sample(neighbour, where, mode="bilinear", align_corners=False)  # [U*V, D, 1, M/2]
            theirs.append(sampled[:, :, 0].transpose(1, 2).reshape(panoramas, count, -1, grid.shape[-1]))
        return torch.cat(mine, 2), torch.cat(theirs, 2)


@torch.no_grad()
def retrieval(a: Tensor, b: Tensor) -> float:
    """Share of views whose mean overlap feature is nearest to its own partner among all views of all panoramas. [U, V, M, D] each."""
    query, key = (F.normalize(z.mean(2).flatten(0, 1) - z.mean((0, 1, 2)), dim=-1) for z in (a, b))
    best = (query @ key.T).argmax(1)
    return float((best == torch.arange(len(best), device=best.device)).float().mean())


@torch.no_grad()
def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred features [*, D] (Roy and Vetterli, 2007)."""
    rows = z.flatten(0, -2).float()
    share = torch.linalg.svdvals(rows - rows.mean(0))
    share = share / share.sum().clamp_min(1e-12)
    return float(torch.special.entr(share).sum().exp())
