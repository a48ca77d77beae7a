"""Dense contrastive learning on overlap pairs: each cell must find its partner among cells that show something else.

Symmetric InfoNCE as in DenseCL (Wang et al., CVPR 2021), whose positives are the most similar cells; ours are known by geometry. Its negatives are
other images. They alone would be content with one feature for all of a panorama, so cells that look elsewhere in the same panorama are negatives
too, as in PixContrast (Xie et al., "Propagate Yourself", CVPR 2021).
Legend: U panoramas, M pairs a panorama, K of them as negatives, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from panollava.config import RunConfig
from panollava.losses.overlap import FEWEST, OverlapPairs, evenly

NEGATIVES = 512
"""Most cells of the own panorama that a cell is told from: all of them would take the memory of M x M similarities."""
NEAR = 2
"""Cells closer than so many may show the same thing, and are no negatives."""


def symmetric(a: Tensor, b: Tensor, pairs: OverlapPairs, config: RunConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss with a run's temperature, and the share of cells that are nearest to their partner."""
    loss, accuracy = densecl(a, b, pairs, config.densecl_temperature)
    return loss, {"densecl_accuracy": accuracy}


def densecl(a: Tensor, b: Tensor, pairs: OverlapPairs, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean of both directions for paired features [U, M, D]. Raises ValueError for fewer than 4 panoramas."""
    if len(a) < FEWEST:
        raise ValueError(f"DenseCL contrasts images and needs at least {FEWEST}; this batch has {len(a)}.")
    a, b = (F.normalize(z.float(), dim=-1) for z in (a, b))
    chosen = evenly(a.shape[1], NEGATIVES).to(a.device)
    near = pairs.direction @ pairs.direction[chosen].T > math.cos(math.radians(min(180.0, NEAR * pairs.cell_angle)))  # [M, K]
    ways = [_info_nce(query, key, chosen, near, temperature) for query, key in ((a, b), (b, a))]
    return (ways[0][0] + ways[1][0]) / 2, (ways[0][1] + ways[1][1]) / 2


def _info_nce(query: Tensor, key: Tensor, chosen: Tensor, near: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding one's partner, and how often it is nearest: among the same cell of all panoramas and chosen ones of the own."""
    across = torch.einsum("umd,wmd->umw", query, key)  # [U, M, U]
    within = torch.einsum("umd,ukd->umk", query, key[:, chosen]).masked_fill(near, -math.inf)  # [U, M, K]
    logits = torch.cat([across, within], -1).flatten(0, 1) / temperature  # [U*M, U+K]
    partner = torch.arange(len(query), device=query.device).repeat_interleave(query.shape[1])
    return F.cross_entropy(logits, partner), (logits.detach().argmax(-1) == partner).float().mean()
