"""A request to leave: SIGTERM, Ctrl-C, a file, or a worker that is gone. It only sets a flag; the loop saves and leaves at its next step boundary.

A checkpoint written inside a signal handler can be corrupt, and a signal during the imports would leave without a word,
so `listen` comes before torch is imported.
"""

import os
import signal
from pathlib import Path
from types import FrameType

from panollava.events import ABANDONED, SAVE_FILE, STOP_FILE
from panollava.training.lease import Lease

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_STOPPED = 75
"""Exit status of a training or evaluation that was asked to stop (EX_TEMPFAIL: ask again and it goes on)."""


class Stopped(Exception):
    """Raised where it is safe to leave; says what was saved, which is nothing before the first step."""

    def __init__(self, saved: str = "Nothing was saved: there had been no step yet.", step: int = 0) -> None:
        super().__init__(saved)
        self.step = step


class StopRequest:
    """Whether this process is to stop: somebody asked for it, or its worker is gone."""

    def __init__(self, directory: Path) -> None:
        self._stop, self._save, self._signalled = str(directory / STOP_FILE), str(directory / SAVE_FILE), False
        self._lease = Lease.given(directory)

    def listen(self) -> None:
        """Take over SIGTERM and Ctrl-C. Called again after Lightning has put its own handlers in place."""
        for each in SIGNALS:
            signal.signal(each, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # those that a rank was started with: what came before now is heard

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and self._signalled:
            raise KeyboardInterrupt  # the second Ctrl-C means now
        self._signalled = True

    def __bool__(self) -> bool:
        return self._is_asked() or (self._lease is not None and self._lease.is_over())

    def _is_asked(self) -> bool:
        return self._signalled or os.access(self._stop, os.F_OK)  # asked in every step, and `exists` takes three times as long

    @property
    def reason(self) -> str:
        """Why, in a word, for the stage event of a process that leaves."""
        return "stop_requested" if self._is_asked() or self._lease is None else ABANDONED

    def wants_save(self) -> bool:
        """True once for each request to save now."""
        if not os.access(self._save, os.F_OK):
            return False
        os.unlink(self._save)
        return True
