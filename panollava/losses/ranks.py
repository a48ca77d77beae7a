"""Features of a batch that is spread over processes, brought together with their gradient.

Every rank then computes the same loss of the whole batch. Its gradients, averaged over ranks as DDP does, are those of one process.
Legend: U panoramas of this rank.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from panollava import ranks


def gathered(keys: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    """Features [U, ...] of panoramas with these fingerprints -> those of all ranks in the order of the ranks, each panorama once."""
    if ranks.count() == 1:
        return features
    counts = [int(count) for count in _all(torch.tensor([len(keys)], device=keys.device))]
    everywhere = torch.cat(_together(keys, counts)).tolist()
    first = {key: place for place, key in reversed(list(enumerate(everywhere)))}
    once = torch.tensor(sorted(first.values()), device=keys.device)
    return tuple(torch.cat(_together(each, counts)).index_select(0, once) for each in features)


def fingerprints(pixels: Tensor) -> Tensor:
    """uint8 [U, ...] -> int64 [U]: equal for equal panoramas, whatever batch and rank they are in."""
    flat = pixels.flatten(1)
    weights = _weights(flat.shape[1]).to(flat.device)
    return torch.stack([(row.to(torch.int32) * weights).sum() for row in flat])


def _together(mine: Tensor, counts: list[int]) -> list[Tensor]:
    """The tensors of all ranks; all_gather wants equal sizes, so the shorter ones travel with zeros behind."""
    padded = torch.cat([mine, mine.new_zeros(max(counts) - len(mine), *mine.shape[1:])])
    return [theirs[:count] for theirs, count in zip(_all(padded), counts, strict=True)]


def _all(mine: Tensor) -> tuple[Tensor, ...]:
    theirs: tuple[Tensor, ...] = _Gather.apply(mine)  # type: ignore[no-untyped-call]
    return theirs


class _Gather(torch.autograd.Function):
    """A tensor of each rank -> all of them; backward every rank is given what the losses of all ranks ask of its own."""

    @staticmethod
    def forward(_: Any, mine: Tensor) -> tuple[Tensor, ...]:
        theirs = [torch.empty_like(mine) for _ in range(ranks.count())]
        dist.all_gather(theirs, mine.contiguous())
        return tuple(theirs)

    @staticmethod
    def backward(_: Any, *wanted: Tensor) -> Tensor:
        summed = torch.stack(wanted)
        dist.all_reduce(summed)
        return summed[ranks.rank()]


@lru_cache(maxsize=4)
def _weights(size: int) -> Tensor:
    """Random factors that leave room for a byte in 32 bits."""
    return torch.randint(1, 1 << 20, (size,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
