"""Patches with where they are, for resamplers whose attention would otherwise see a bag of them: front could not be told from behind.

Legend: U panoramas, V views, G patches a side, D vision width, W resampler width.
"""

import torch
from torch import Tensor, nn

from panollava.resamplers import Sizes

SCALE = 0.3
"""Of the places at the start, beside mapped features of about twice that: much less, and attention begins blind to where a patch is."""


class PlacedPatches(nn.Module):
    """Patch grids [U, V, G, G, D] -> [U, V*G*G, W]: mapped to the width, plus what is learned of each view and of each place in a view."""

    def __init__(self, sizes: Sizes, width: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(sizes.vision_width, width)
        self.view = nn.Parameter(torch.randn(sizes.views, 1, width) * SCALE)
        self.place = nn.Parameter(torch.randn(1, sizes.grid**2, width) * SCALE)

    def forward(self, grid: Tensor) -> Tensor:
        patches: Tensor = self.inlet(grid.flatten(2, 3)) + self.view + self.place  # [U, V, G*G, W]
        return patches.flatten(1, 2)
