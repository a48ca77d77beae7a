"""Resamplers that keep the ring's order: patches are averaged in their grid, and every token is mapped by itself.

Legend: U panoramas, V views, G patches a side, P pooled patches a view, N = V * P image tokens, D vision width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from panollava.config import RunConfig
from panollava.resamplers import Sizes, width


def pooled(grid: Tensor, pool: int) -> Tensor:
    """Patch grids [U, V, G, G, D] -> tokens [U, N, D], view-major: the ring once around, starting at the front."""
    maps = grid.flatten(0, 1).permute(0, 3, 1, 2)  # [U*V, D, G, G]
    tokens = F.avg_pool2d(maps, pool).flatten(2).transpose(1, 2)  # [U*V, P, D]
    return tokens.reshape(grid.shape[0], grid.shape[1] * tokens.shape[1], -1)


class AveragePool(nn.Module):
    """The mean of `pool` x `pool` patches and nothing that learns, so that the projection alone is the bridge."""

    def __init__(self, config: RunConfig, sizes: Sizes) -> None:
        super().__init__()
        self.pool, self.width = config.pool, sizes.vision_width

    def forward(self, grid: Tensor) -> Tensor:
        return pooled(grid, self.pool)


class MlpResampler(nn.Sequential):
    """Linear, LayerNorm, GELU, Linear on every pooled token by itself."""

    def __init__(self, config: RunConfig, sizes: Sizes) -> None:
        self.pool, self.width = config.pool, width(config, sizes)
        super().__init__(nn.Linear(sizes.vision_width, self.width), nn.LayerNorm(self.width), nn.GELU(), nn.Linear(self.width, self.width))

    def forward(self, grid: Tensor) -> Tensor:
        tokens: Tensor = super().forward(pooled(grid, self.pool))  # type: ignore[no-untyped-call]
        return tokens


class LinearResampler(nn.Linear):
    """One linear map of every pooled token. With the projection behind it still linear, through a neck of `resampler_width`."""

    def __init__(self, config: RunConfig, sizes: Sizes) -> None:
        self.pool, self.width = config.pool, width(config, sizes)
        super().__init__(sizes.vision_width, self.width)

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(pooled(grid, self.pool))
