"""Flamingo's perceiver: a few learned queries read the patches of all views.

Legend: U panoramas, M patches of all views, Q queries, H heads, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panollava.config import RunConfig
from panollava.model.places import PlacedPatches
from panollava.resamplers import Sizes, width


class PerceiverResampler(nn.Module):
    """Patch grids [U, V, G, G, D] -> [U, Q, W]."""

    def __init__(self, config: RunConfig, sizes: Sizes) -> None:
        super().__init__()
        self.width = width(config, sizes)
        self.patches = PlacedPatches(sizes, self.width)
        self.queries = nn.Parameter(torch.randn(config.resampler_queries, self.width) * 0.02)
        self.layers = nn.ModuleList(PerceiverLayer(self.width, config.resampler_heads) for _ in range(config.resampler_layers))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, grid: Tensor) -> Tensor:
        patches = self.patches(grid)  # [U, M, W]
        queries = self.queries.expand(len(grid), -1, -1)  # [U, Q, W]
        for layer in self.layers:
            queries = layer(queries, patches)
        out: Tensor = self.norm(queries)
        return out


class PerceiverLayer(nn.Module):
    """Queries attend to the patches and to each other at once, then each thinks for itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_patches, self.norm_queries = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """[U, Q, W], [U, M, W] -> [U, Q, W]"""
        asking = self.norm_queries(queries)
        keys, values = self.key_value(torch.cat([self.norm_patches(patches), asking], dim=1)).chunk(2, dim=-1)  # [U, M+Q, W]
        heard = F.scaled_dot_product_attention(self._split(self.query(asking)), self._split(keys), self._split(values))  # [U, H, Q, W/H]
        queries = queries + self.out(heard.transpose(1, 2).flatten(2))
        thought: Tensor = self.feed_forward(queries)
        return queries + thought

    def _split(self, tokens: Tensor) -> Tensor:
        """[U, M, W] -> [U, H, M, W/H]"""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)
