"""A trainer as a process of its own that kills itself, with SIGKILL, at a named moment. Forked from a process that has imported everything."""

import multiprocessing
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panollava import rundir
from panollava.config import RunConfig

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["panollava.training.fit"])


@dataclass(frozen=True)
class Death:
    """Die at the `count`-th call of a function whose first path argument's name contains `file`, after so much of the call."""

    where: str
    count: int = 1
    file: str = ""


def train(config: RunConfig, death: Death | None = None, largest_file: int | None = None) -> int:
    """Train with --resume auto in a new process; its exit status, negative for the signal that killed it."""
    process = _processes.Process(target=_run, args=(config.model_dump_json(), death, largest_file))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(config: str, death: Death | None, largest_file: int | None) -> None:
    from panollava.training.chain import train_chain

    if death:
        _arm(death)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    train_chain(RunConfig.model_validate_json(config), resume="auto", stage_dir=None)


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(death: Death) -> None:
    import torch

    from panollava.training.files import WholeFiles
    from panollava.training.module import StageModule

    holders: dict[str, tuple[Any, str]] = {
        "step": (StageModule, "measure"),
        "validation": (StageModule, "validation_step"),
        "half a checkpoint": (torch, "save"),
        "a checkpoint without its new name": (rundir, "write_whole"),
        "a name without its note": (rundir, "link_whole"),
        "checkpoint": (WholeFiles, "save_checkpoint"),
    }
    holder, name = holders[death.where]
    honest, left = getattr(holder, name), [death.count]

    def deadly(*arguments: Any, **keywords: Any) -> Any:
        if death.file not in str(next((each for each in arguments if isinstance(each, Path)), "")):
            return honest(*arguments, **keywords)
        left[0] -= 1
        if left[0] == 0 and death.where == "half a checkpoint":
            return honest(arguments[0], _TornFile(arguments[1]))
        done = honest(*arguments, **keywords)
        if left[0] == 0:
            _die()
        return done

    setattr(holder, name, deadly)


class _TornFile:
    """Writes the first part of what it is given, for real, and is the process's last act."""

    def __init__(self, file: Any) -> None:
        self._file, self._room = file, 200_000

    def write(self, data: bytes) -> int:
        self._file.write(data[: self._room])
        self._room -= len(data)
        if self._room <= 0:
            self._file.flush()
            _die()
        return len(data)

    def flush(self) -> None:
        self._file.flush()
