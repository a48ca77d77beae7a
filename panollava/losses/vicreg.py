"""VICReg (Bardes, Ponce and LeCun, ICLR 2022) on overlap pairs, with statistics taken across images.

Taken over all cells at once, the statistics would be content with features that tell positions apart and ignore the image.
Legend: U panoramas, V views, M pairs a view, D width.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-4


@dataclass(frozen=True)
class Vicreg:
    """The three terms, unweighted."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg(a: Tensor, b: Tensor) -> Vicreg:
    """Terms for paired features [U, V, M, D] in fp32. Raises ValueError for fewer than 4 panoramas, which have no statistics."""
    if len(a) < 4:
        raise ValueError(f"VICReg takes statistics across images and needs at least 4; this batch has {len(a)}.")
    a, b = a.float(), b.float()
    return Vicreg(F.mse_loss(a, b), (_hinge(a) + _hinge(b)) / 2, _covariance(a) + _covariance(b))


def _hinge(z: Tensor) -> Tensor:
    """How far each feature's standard deviation across images falls short of 1, at every view and cell."""
    return F.relu(1 - (z.var(0) + EPSILON).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    """Squared off-diagonal covariances over D. Centred per view and cell, then all rows pooled, so that rows >> D."""
    rows = (z - z.mean(0)).flatten(0, 2)
    matrix = rows.T @ rows / (len(rows) - 1)
    return (matrix.pow(2).sum() - matrix.diagonal().pow(2).sum()) / z.shape[-1]


def expander(vision_width: int, width: int) -> nn.Sequential:
    """The throw-away head on which the loss is taken, so that the encoder itself need not be decorrelated."""
    return nn.Sequential(nn.Linear(vision_width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
