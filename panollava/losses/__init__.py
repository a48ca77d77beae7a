"""Losses on what neighbouring views of one panorama both see. A new one is a file here, a line below, and its name and options in the schema."""

from collections.abc import Callable

from torch import Tensor

from panollava.config import RunConfig
from panollava.losses import densecl, vicreg
from panollava.losses.overlap import OverlapPairs

OverlapLoss = Callable[[Tensor, Tensor, OverlapPairs, RunConfig], tuple[Tensor, dict[str, Tensor]]]
"""Paired features [U, M, D] of unique panoramas -> what is minimised, and the terms worth logging."""

LOSSES: dict[str, OverlapLoss] = {
    "vicreg": vicreg.weighted,
    "densecl": densecl.symmetric,
}
"""By `overlap_loss`."""
