"""Several processes, one training: which of them this is, and what they tell each other. Alone, every exchange is the identity.

Rank 0 writes the files and speaks; all ranks decide alike, because they decide on what was exchanged.
"""

import os
from collections.abc import Sequence
from typing import Any

RANK, LOCAL_RANK, LAUNCHED = "RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"
"""torchrun sets them all, our own start of ranks the second."""


def is_first() -> bool:
    """Whether this process is rank 0. Known before torch is imported."""
    return int(os.environ.get(RANK) or os.environ.get(LOCAL_RANK) or 0) == 0


def local() -> int:
    """This process's number among those of its machine."""
    return int(os.environ.get(LOCAL_RANK) or 0)


def launched_by_torchrun() -> bool:
    return LAUNCHED in os.environ


def rank() -> int:
    return _group().get_rank() if _several() else 0


def count() -> int:
    return _group().get_world_size() if _several() else 1


def sums(values: Sequence[float]) -> list[float]:
    """Each value summed over the ranks, in fp64."""
    if not _several():
        return list(values)
    import torch

    tensor = torch.tensor(values, dtype=torch.float64, device=_device())
    _group().all_reduce(tensor)
    summed: list[float] = tensor.tolist()
    return summed


def anywhere(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true if it is true on any rank."""
    return tuple(total > 0 for total in sums([float(flag) for flag in flags])) if _several() else flags


def gathered(value: Any) -> list[Any]:
    """The value of every rank, in order."""
    if not _several():
        return [value]
    found: list[Any] = [None] * count()
    _group().all_gather_object(found, value)
    return found


def wait() -> None:
    """Until every rank is here."""
    if _several():
        _group().barrier()


def _several() -> bool:
    return bool(_group().is_available() and _group().is_initialized())


def _group() -> Any:
    import torch.distributed

    return torch.distributed


def _device() -> Any:
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if _group().get_backend() == "nccl" else torch.device("cpu")
