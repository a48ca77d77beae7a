"""Whether a trainer that a worker started still has one. A worker touches the file `lease` beside the events, also while the database is away.

A trainer from a terminal has no lease. Ages are told by this process's own clock from one change of the file to the next, so
neither a clock that is wrong nor one that is set matters.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from panollava.events import LEASE_FILE, LEASE_VARIABLE

LOOK_SECONDS = 1.0
"""Between two looks at the file; asked in every step, it costs a look at the clock."""

log = logging.getLogger("panollava")


class Lease:
    """The lease of one training directory."""

    def __init__(self, directory: Path, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._seconds, self._clock = str(directory / LEASE_FILE), seconds, clock
        self._touched = self._look()
        self._renewed_at = self._looked_at = clock()
        self._is_over = False

    @classmethod
    def given(cls, directory: Path) -> "Lease | None":
        """The one that this process was started with; None from a terminal."""
        seconds = os.environ.get(LEASE_VARIABLE)
        return cls(directory, float(seconds)) if seconds else None

    def is_over(self) -> bool:
        """Whether nobody has renewed it for too long. Once over it stays so: saving and leaving has begun."""
        now = self._clock()
        if self._is_over or now - self._looked_at < min(LOOK_SECONDS, self._seconds / 4):
            return self._is_over
        self._looked_at = now
        if (touched := self._look()) != self._touched:
            self._touched, self._renewed_at = touched, now
        self._is_over = now - self._renewed_at > self._seconds
        if self._is_over:
            log.warning("No worker has renewed the lease for %.0f s: saving and leaving, so that another one can go on from there.", self._seconds)
        return self._is_over

    def _look(self) -> int | None:
        try:
            return os.stat(self._path).st_mtime_ns
        except FileNotFoundError:
            return None
