"""Checkpoint bytes on their way to the disk: all of them are there, or an error says where, how many, and for how many there is room."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from panollava import causes
from panollava.causes import Cause


class CannotSave(Exception):
    """A checkpoint could not be written; those before it are as they were."""


class DiskFull(CannotSave):
    """There was no room for it, or the quota is used up."""


class WholeFiles(TorchCheckpointIO):
    """Writes to the disk itself, not to its cache, and leaves nothing behind when there is no room."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            with path.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch turns the errors of some writes into its own
            path.unlink(missing_ok=True)
            needed, free = _size(checkpoint), shutil.disk_usage(path.parent).free
            kind, why = (DiskFull, "no space left on the device") if free < needed or _has_no_room(error) else (CannotSave, str(error))
            text = f"{path.with_suffix('')}: could not be written: {why}. It needs {needed:,} bytes, and {free:,} are free on its disk."
            raise kind(f"{text} The checkpoints before it are as they were.") from error


def _has_no_room(error: BaseException) -> bool:
    """Whether the disk has said so, or torch when the disk had."""
    return any(causes.own(each) is Cause.disk_full for each in (error, error.__context__) if each)


def _size(checkpoint: dict[str, Any]) -> int:
    counter = _Counter()
    torch.save(checkpoint, counter)  # type: ignore[arg-type]
    return counter.bytes


class _Counter:
    """A file that keeps nothing but its length."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """There is nothing to flush."""
