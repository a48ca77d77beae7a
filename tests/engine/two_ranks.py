"""Two ranks as processes of their own, forked from one that has imported everything, with something done to them at named moments."""

import functools
import math
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from panollava.config import RunConfig

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["panollava.training.fit"])


@dataclass(frozen=True)
class Event:
    """What happens on a rank at some calls of a function, counted from 1; without `calls` at all of them."""

    rank: int
    where: Literal["measure", "validation_step", "patches"]
    what: Literal["die", "terminate", "ask to stop", "not finite", "note"]
    calls: Sequence[int] = ()
    file: Path = Path()
    """What asks to stop, or takes the notes: how many panoramas each call had."""


def train(config: RunConfig, *happens: Event, ranks: int = 2, all_die: bool = False) -> list[int | None]:
    """Train with --resume auto; the exit status of each rank, negative for the signal that killed it. With `all_die`, none outlives another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    text = config.model_copy(update={"devices": ranks}).model_dump_json()
    processes = [
        _processes.Process(target=_run, args=(text, [each for each in happens if each.rank == rank], meeting | {"LOCAL_RANK": str(rank)}))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        return _ended(processes, all_die)
    finally:
        for process in processes:
            process.kill()


def _ended(processes: Sequence[BaseProcess], all_die: bool) -> list[int | None]:
    deadline = time.monotonic() + 200
    while any(process.is_alive() for process in processes):
        assert time.monotonic() < deadline, [process.exitcode for process in processes]
        if all_die and not all(process.is_alive() for process in processes):
            for process in processes:
                process.kill()
        time.sleep(0.01)
    return [process.exitcode for process in processes]


def _run(config: str, happens: Sequence[Event], environment: dict[str, str]) -> None:
    from panollava.cli import exit_codes
    from panollava.training.chain import train_chain

    os.environ |= environment
    for each in happens:
        _arm(each)
    with exit_codes():
        train_chain(RunConfig.model_validate_json(config), resume="auto", stage_dir=None)


def _arm(event: Event) -> None:
    from panollava.model.panollava import PanoLlava
    from panollava.training.module import StageModule

    holder = PanoLlava if event.where == "patches" else StageModule
    honest, count = getattr(holder, event.where), iter(range(1, 10**9))

    @functools.wraps(honest)
    def watched(self: Any, *arguments: Any) -> Any:
        found = honest(self, *arguments)
        return _ACTS[event.what](event, found, arguments) if (next(count) in event.calls or not event.calls) else found

    setattr(holder, event.where, watched)


def _signal(number: signal.Signals) -> Callable[..., Any]:
    def act(_: Event, found: Any, __: Any) -> Any:
        os.kill(os.getpid(), number)
        return found

    return act


def _ask(event: Event, found: Any, _: Any) -> Any:
    event.file.touch()
    return found


def _spoil(_: Event, found: Any, __: Any) -> Any:
    loss, weight, terms = found
    return loss * math.nan, weight, terms


def _note(event: Event, found: Any, arguments: Any) -> Any:
    with suppress(FileExistsError):
        event.file.parent.mkdir(parents=True)
    with event.file.open("a") as notes:
        notes.write(f"{len(arguments[0])}\n")
    return found


_ACTS: dict[str, Callable[[Event, Any, Any], Any]] = {
    "die": _signal(signal.SIGKILL), "terminate": _signal(signal.SIGTERM), "ask to stop": _ask, "not finite": _spoil, "note": _note,
}  # fmt: skip
