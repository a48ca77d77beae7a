"""VICReg (Bardes, Ponce and LeCun, ICLR 2022) on overlap pairs, with statistics taken across images.

Taken over all cells at once, the statistics would be content with features that tell positions apart and ignore the image.
Legend: U panoramas, M pairs a panorama, D width.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from panollava.config import RunConfig
from panollava.losses.overlap import FEWEST, OverlapPairs

EPSILON = 1e-4


@dataclass(frozen=True)
class Vicreg:
    """The three terms, unweighted."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg(a: Tensor, b: Tensor) -> Vicreg:
    """Terms for paired features [U, M, D] in fp32. Raises ValueError for fewer than 4 panoramas, which have no statistics."""
    if len(a) < FEWEST:
        raise ValueError(f"VICReg takes statistics across images and needs at least {FEWEST}; this batch has {len(a)}.")
    a, b = a.float(), b.float()
    return Vicreg(F.mse_loss(a, b), (_hinge(a) + _hinge(b)) / 2, _covariance(a) + _covariance(b))


def weighted(a: Tensor, b: Tensor, _: OverlapPairs, config: RunConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """VICReg with a run's weights."""
    terms = vicreg(a, b)
    total = config.vicreg_inv * terms.invariance + config.vicreg_var * terms.variance + config.vicreg_cov * terms.covariance
    return total, {f"vicreg_{name}": term for name, term in vars(terms).items()}


def _hinge(z: Tensor) -> Tensor:
    """How far each feature's standard deviation across images falls short of 1, at every view and cell."""
    return F.relu(1 - (z.var(0) + EPSILON).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    """Squared off-diagonal covariances over D. Centred per view and cell, then all rows pooled, so that rows >> D."""
    rows = (z - z.mean(0)).flatten(0, 1)
    matrix = rows.T @ rows / (len(rows) - 1)
    return (matrix.pow(2).sum() - matrix.diagonal().pow(2).sum()) / z.shape[-1]
