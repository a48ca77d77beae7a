"""The ranks of one machine: started by the first of them, and none outlives the others without a word.

A rank that waits for one that has ended hears an error of the exchange, or nothing at all; then the watch ends it. torchrun starts and ends
ranks by itself, and is watched as a parent. Torch-free, so that all ranks import torch at the same time.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from panollava import ranks
from panollava.errors import BadInput, OutOfMemory
from panollava.training.stop import SIGNALS, Stopped

log = logging.getLogger("panollava")
FIRST = "PANOLLAVA_FIRST_RANK"
"""Names the first rank's process to those that it starts."""
PATIENCE = 60.0
"""Seconds after the end of one rank until the others have ended, wherever they are."""
CLOSE = 3.0
"""Seconds in which an error of the exchange and the end of the rank that caused it are one."""
LEAVING = 30.0
"""Seconds in which the other ranks end by themselves when the training is over."""


class RankLost(Exception):
    """Another rank of this training has ended before its time."""


class Fellows:
    """The other ranks of this machine: children of the first; to any other, the parent stands for all of them."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._others: list[subprocess.Popen[bytes]] = []
        self._parent = int(os.environ.get(FIRST) or os.getppid())

    def __enter__(self) -> "Fellows":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """They end before the first does. When it fails or stops, they have nothing that is worth waiting for."""
        for other in self._others if kind is None else ():
            with suppress(subprocess.TimeoutExpired):
                other.wait(LEAVING)
        self._kill()

    def start(self, devices: int) -> None:
        """This command once more for each further device, unless somebody has started the ranks already."""
        if devices == 1 or ranks.LOCAL_RANK in os.environ:
            return
        os.environ |= {ranks.LOCAL_RANK: "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a stop waits until they listen; now it would end them
        self._others = [
            subprocess.Popen(_command(), env={**os.environ, ranks.LOCAL_RANK: str(rank), FIRST: str(os.getpid())}) for rank in range(1, devices)
        ]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    @contextmanager
    def watched(self, tell: Callable[[RankLost], None]) -> Iterator[None]:
        """The end of another rank ends what is done here, with RankLost; where nothing can be raised, `tell` hears it and the process ends."""
        over = threading.Event()
        if self._others or not ranks.is_first():
            threading.Thread(target=self._watch, args=(over, tell), daemon=True).start()
        try:
            yield
        except (BadInput, OutOfMemory, Stopped):
            raise
        except Exception as error:
            if lost := self._lost_by(time.monotonic() + CLOSE):
                raise RankLost(lost) from error
            raise
        finally:
            over.set()

    def _watch(self, over: threading.Event, tell: Callable[[RankLost], None]) -> None:
        while not over.wait(1) and not self._lost():
            pass
        if not over.wait(self.patience):
            lost = RankLost(self._lost())
            log.error("%s", lost)
            tell(lost)
            self._kill()
            os._exit(1)

    def _lost_by(self, deadline: float) -> str | None:
        while not (lost := self._lost()) and ranks.count() > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        return lost

    def _lost(self) -> str | None:
        """What has become of another rank that ended before its time; None while all are there."""
        if not ranks.is_first() and os.getppid() != self._parent:
            return f"Process {self._parent}, which started rank {ranks.local()}, has ended."
        for rank, other in enumerate(self._others, 1):
            if (code := other.poll()) is not None and code != 0:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}; what it said is in the log"
                return f"Rank {rank} of {len(self._others) + 1} (process {other.pid}) {how}."
        return None

    def _kill(self) -> None:
        for other in self._others:
            other.kill()
            other.wait()


def _command() -> list[str]:
    main = sys.modules["__main__"].__spec__
    return [sys.executable, *(["-m", main.name] if main else [os.path.abspath(sys.argv[0])]), *sys.argv[1:]]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
