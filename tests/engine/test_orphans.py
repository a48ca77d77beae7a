"""After kill -9 of a trainer its loader ends too, and the fork server that has started it, at which torch's own watch looks in vain."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from panollava.training import data
from tests.engine.test_command_line import wait_for

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["panollava.training.fit"])


def who(_: Any) -> str:
    """A loader, and the server that has started it."""
    return f"{os.getpid()} {os.getppid()}"


def train(told: Path) -> None:
    """Read a batch with a loader, say who made it, and train on it for ever."""
    assert multiprocessing.get_start_method() == "forkserver", "as in the process that started this one"
    samples: Any = range(8)
    batches = iter(data.loader(samples, who, [[i] for i in range(8)], num_workers=1))
    told.write_text(f"{next(batches)}\n")
    signal.pause()


def test_a_loader_and_its_server_end_when_their_trainer_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    trainer = _processes.Process(target=train, args=(told,))
    trainer.start()
    wait_for(lambda: told.exists() and told.read_text().endswith("\n"))
    left = [Path("/proc", number) for number in told.read_text().split()]
    assert [is_alive(each) for each in left] == [True, True]
    trainer.kill()
    wait_for(lambda: not any(is_alive(each) for each in left))


def is_alive(process: Path) -> bool:
    """A zombie is not: it waits for whoever has inherited it."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
