"""Recognise that memory has run out, whoever reports it, and say what it was wanted for and which settings need less."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from panollava import causes
from panollava.causes import Cause
from panollava.config import RunConfig
from panollava.errors import OutOfMemory
from panollava.shortage import Shortage, Work
from panollava.stages import Stage
from panollava.training.devices import precision_of

Kind = Literal["device", "host"]
HOST = "the host"
KINDS: dict[Cause | None, Kind] = {Cause.out_of_memory: "device", Cause.out_of_host_memory: "host"}


def kind_of(error: BaseException) -> Kind | None:
    """Whose memory has run out; None for an error of another kind, and for one that is told already."""
    return None if isinstance(error, OutOfMemory) else KINDS.get(causes.own(error))


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
        place = f"cuda:{torch.cuda.current_device()}" if kind == "device" and has_device else HOST
        first, *_ = str(error).splitlines() or [type(error).__name__]
        suggestion = {change.name: change.value for change in shortage.changes()[:1]}
        raise OutOfMemory(f"{shortage.message(place)}\n{first}", step, suggestion, is_host=place == HOST) from error


def _narrower(config: RunConfig) -> str | None:
    if precision_of(config).precision != "32-true":
        return None
    return "bf16" if not torch.cuda.is_available() or torch.cuda.is_bf16_supported() else "fp16"


def free() -> None:
    """Give back what nobody holds any more. Called where the exception is gone, and with it the tensors its frames held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
