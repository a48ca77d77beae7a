"""Is the encoder still telling panoramas apart? Figures on its own features, whatever the loss; they are NaN, not errors, where it diverges.

Legend: U panoramas, V views that have pairs, M pairs a panorama, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from panollava.losses.vicreg import vicreg

ROWS = 4096
"""So many features are enough to estimate a rank."""
ROUNDING = 1e-6
"""What is left of equal features when their mean is taken away has any rank, and means nothing."""


@torch.no_grad()
def spread(features: Tensor) -> dict[str, float]:
    """How much features [U, M, D] vary across panoramas at the same view and cell, and in how many directions."""
    features = features.float()
    return {"feature_std": float(features.std(0).mean()), "effective_rank": effective_rank(features)}


@torch.no_grad()
def agreement(a: Tensor, b: Tensor, view: Tensor) -> dict[str, float]:
    """How well paired features [U, M, D] agree; `view` [M] as in OverlapPairs. At least 4 panoramas."""
    a, b = a.float(), b.float()
    terms = {name: float(term) for name, term in vars(vicreg(a, b)).items()}
    return terms | {"retrieval": retrieval(a, b, view), "adjacent_cosine": float(F.cosine_similarity(a, b, dim=-1).mean())}


@torch.no_grad()
def retrieval(a: Tensor, b: Tensor, view: Tensor) -> float:
    """Share of views whose mean overlap feature is nearest to its own partner among all views of all panoramas."""
    query, key = (F.normalize(_by_view(z - z.mean((0, 1)), view).flatten(0, 1), dim=-1) for z in (a, b))
    similar = query @ key.T
    if not bool(similar.isfinite().all()):
        return math.nan
    return float((similar.argmax(1) == torch.arange(len(similar), device=similar.device)).float().mean())


@torch.no_grad()
def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, 2007) of features [U, M, D], centred per view and cell.

    Centred over all cells at once, features that ignore the image and know only their position would have a high rank.
    """
    rows = (z - z.mean(0)).flatten(0, 1).float()
    rows = rows[:: max(1, len(rows) // ROWS)]
    largest, scale = float(rows.abs().max()), float(z.abs().max())
    if not math.isfinite(largest):
        return math.nan
    if largest <= ROUNDING * scale:
        return 1.0
    values = torch.linalg.svdvals(rows / largest)  # the scale drops out below; large ones would overflow
    return float(torch.special.entr(values / values.sum()).sum().exp())


def _by_view(z: Tensor, view: Tensor) -> Tensor:
    """Means over the pairs of each view: [U, M, D] -> [U, V, D]."""
    _, place, counts = torch.unique(view, return_inverse=True, return_counts=True)
    means: Tensor = z.new_zeros(len(z), len(counts), z.shape[-1]).index_add_(1, place, z) / counts[:, None]
    return means
