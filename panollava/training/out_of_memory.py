"""Recognise that memory has run out, whoever reports it, and say what it was wanted for and which settings need less."""

import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from panollava.config import RunConfig
from panollava.errors import OutOfMemory
from panollava.shortage import Shortage, Work
from panollava.stages import Stage
from panollava.training.devices import precision_of

Kind = Literal["device", "host"]
HOST = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
DEVICE = ("CUDA out of memory", "CUDA error: out of memory", "HIP out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What torch says in a RuntimeError. Statuses that can also mean something else, such as NOT_SUPPORTED, are not taken for it."""


def kind_of(error: BaseException) -> Kind | None:
    """Whose memory has run out; None for an error of another kind."""
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host"
    if not isinstance(error, RuntimeError):
        return None
    said = str(error)
    return "host" if any(words in said for words in HOST) else "device" if any(words in said for words in DEVICE) else None


@contextmanager
def told(config: RunConfig, stage: Stage, work: Work, *, step: int = 0, samples: int | None = None) -> Iterator[None]:
    """Raises OutOfMemory in the place of whatever says that memory has run out in here; other errors pass."""
    try:
        yield
    except Exception as error:
        if (kind := kind_of(error)) is None:
            raise
        has_device = torch.cuda.is_available()
        shortage = Shortage(config, stage, work, step, samples, _narrower(config), elsewhere=kind == "host" and has_device)
        place = f"cuda:{torch.cuda.current_device()}" if kind == "device" and has_device else "the host"
        first, *_ = str(error).splitlines() or [type(error).__name__]
        suggestion = {change.name: change.value for change in shortage.changes()[:1]}
        raise OutOfMemory(f"{shortage.message(place)}\n{first}", step, suggestion) from error


def _narrower(config: RunConfig) -> str | None:
    if precision_of(config).precision != "32-true":
        return None
    return "bf16" if not torch.cuda.is_available() or torch.cuda.is_bf16_supported() else "fp16"


def free() -> None:
    """Give back what nobody holds any more. Called where the exception is gone, and with it the tensors its frames held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
