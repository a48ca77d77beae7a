"""BLIP-2's Q-Former, as transformers has it: queries attend to each other and, in every layer, to the patches of all views.

Legend: U panoramas, Q queries, W width.
"""

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from panollava.config import RunConfig
from panollava.model.places import PlacedPatches
from panollava.resamplers import Sizes, width


class QFormerResampler(nn.Module):
    """Patch grids [U, V, G, G, D] -> [U, Q, W]."""

    def __init__(self, config: RunConfig, sizes: Sizes) -> None:
        super().__init__()
        self.width = width(config, sizes)
        self.patches = PlacedPatches(sizes, self.width)
        self.queries = nn.Parameter(torch.randn(config.resampler_queries, self.width) * 0.02)
        self.qformer = Blip2QFormerModel(_config(config, self.width))

    def forward(self, grid: Tensor) -> Tensor:
        queries = self.queries.expand(len(grid), -1, -1)
        out: Tensor = self.qformer(query_embeds=queries, encoder_hidden_states=self.patches(grid)).last_hidden_state
        return out


def _config(config: RunConfig, width: int) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        hidden_size=width, intermediate_size=4 * width, encoder_hidden_size=width, num_hidden_layers=config.resampler_layers,
        num_attention_heads=config.resampler_heads, cross_attention_frequency=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
