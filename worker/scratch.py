"""This host's own directory for artifacts that belong into the object store: attempts at work, and copies, forgotten when nobody uses them."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import artifacts
from worker.follow import Claimed

STORED = ".stored"
"""A file of this name says that the store has all of an attempt's directory, or that there are copies of its objects here."""
UNSTORED = ".unstored"
"""One of this name, that the directory has more than the store. So long it stays, whoever has used copies that lie in it."""
TAKEN = ".taken"
"""A file that is locked by whoever uploads what an attempt without a worker has left."""
CACHE = "_cache"
"""This host's own cache of views and features; no bucket can have this name."""
KEPT_SECONDS = 24 * 3600.0
"""How long a copy is kept that no job asks for."""


def begin(claimed: Claimed) -> None:
    """An empty directory: what lies under this name is of an earlier claim that did not come to its commit, or of another database."""
    if artifacts.is_remote(claimed.name):
        shutil.rmtree(claimed.directory, ignore_errors=True)
        claimed.directory.mkdir(parents=True)
        (claimed.directory / UNSTORED).touch()


def end(claimed: Claimed) -> None:
    """The store has everything."""
    (claimed.directory / STORED).touch()
    (claimed.directory / UNSTORED).unlink(missing_ok=True)


@contextmanager
def taken(claimed: Claimed) -> Iterator[bool]:
    """False if another thread or process of this host has taken the directory. A process that dies lets go."""
    with (claimed.directory / TAKEN).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def use(copy: Path) -> None:
    """A job is given this copy of a file."""
    if attempt := next((each for each in copy.parents if each.name.startswith("attempt-")), None):
        (attempt / STORED).touch()


def trim(scratch: Path, kept_seconds: float = KEPT_SECONDS) -> None:
    """Forget copies that no job has asked for in a while; what the store has not got is never touched."""
    buckets = [each for each in scratch.glob("*") if each.name != CACHE]
    for mark in [mark for bucket in buckets for mark in bucket.rglob(f"attempt-*/{STORED}")]:
        if not mark.with_name(UNSTORED).exists() and time.time() - mark.stat().st_mtime > kept_seconds:
            shutil.rmtree(mark.parent, ignore_errors=True)
