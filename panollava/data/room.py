"""How much the cache may hold: what was used longest ago goes first, and nothing that a run at work has named.

Each run lists what it uses in a file that it keeps locked; the lock goes with the process, however that ends. Rooms are taken and
cleared under one lock of the directory, in steps, so runs that build at once may exceed the limit by one step each until the next.
"""

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TextIO
from uuid import uuid4

log = logging.getLogger("panollava")
KEPT = ("views", "features", "remote")
"""Directories whose files count and may go."""
PART = ".part"
"""Ends the name of a file that is being written, or that a killed process has left."""
STALE_SECONDS = 3600.0
RESERVE = 1 << 30
"""Bytes of the disk that are left to others: a checkpoint is worth more than a cache."""
STEPS = 64
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """One run's part in a cache directory. Safe to share between threads; a process that was given a copy takes no room of its own."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit
        self._step = max(1, limit // STEPS)
        self._granted = self._pending = 0
        """Bytes that may be taken before the directory is looked at again, and bytes that were taken and may not be in it yet."""
        self._is_full = False
        self._lock = Lock()
        names = root / "in-use"
        names.mkdir(parents=True, exist_ok=True)
        with self._cleared():  # a list that is not yet locked must not be taken for a dead run's
            self._used()
            self._list: TextIO | None = (names / uuid4().hex).open("w", buffering=1)
            fcntl.flock(self._list, fcntl.LOCK_EX)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"_is_full": True, "_lock": Lock(), "_list": None, "_granted": 0, "_pending": 0, "_step": 1}

    @property
    def is_full(self) -> bool:
        """Whether something found no room."""
        return self._is_full

    def close(self) -> None:
        """Take nothing more: the disk is full."""
        self._is_full = True

    def use(self, path: Path) -> bool:
        """Whether the file is there; if so it is the last to go, and stays while this run is at work."""
        with self._lock:
            self._name(path)
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def taken(self, path: Path, size: int) -> Iterator[bool]:
        """Room for a file of this size, to be written inside and then in use; False if there is none."""
        has_room = self._take(path, size)
        try:
            yield has_room
        finally:
            with self._lock:
                self._pending -= size if has_room else 0

    def _take(self, path: Path, size: int) -> bool:
        with self._lock:
            if self._is_full:
                return False
            if size > self._granted:
                self._granted = self._clear(max(size, self._step))
            if size > self._granted:
                self._is_full = True
                return False
            self._granted -= size
            self._pending += size
            self._name(path)
            return True

    def _name(self, path: Path) -> None:
        if self._list:
            self._list.write(f"{path.relative_to(self.root)}\n")

    def _clear(self, wanted: int) -> int:
        """Remove what was used longest ago until so many bytes are free, and return as many of them as are."""
        with self._cleared():
            files = sorted(self._files(), key=lambda each: each[1].st_mtime_ns)
            held = sum(stat.st_size for _, stat in files) + self._pending
            free = min(self.limit - held, shutil.disk_usage(self.root).free - RESERVE)
            used = self._used() if free < wanted else set()
            for path, stat in files:
                if free >= wanted:
                    break
                if str(path.relative_to(self.root)) not in used and self._may_go(path, stat):
                    path.unlink(missing_ok=True)
                    free += stat.st_size
        return max(0, min(free, wanted))

    def _may_go(self, path: Path, stat: os.stat_result) -> bool:
        return path.suffix != PART or time.time() - stat.st_mtime > STALE_SECONDS

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for kind in KEPT:
            for directory, _, names in os.walk(self.root / kind):
                for name in names:
                    path = Path(directory, name)
                    try:
                        yield path, path.stat()
                    except FileNotFoundError:
                        continue  # a part that has got its name meanwhile

    def _used(self) -> set[str]:
        """What the runs at work have named. The lists of those that are no more go."""
        used: set[str] = set()
        for path in (self.root / "in-use").iterdir():
            with path.open() as file:
                if _is_locked(file):
                    used.update(line.rstrip("\n") for line in file)
                else:
                    path.unlink()
        return used

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """Alone in the directory, among all that take room."""
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_locked(file: Any) -> bool:
    """Whether the process that wrote it is still at work."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
