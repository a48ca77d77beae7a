"""The lease of a trainer: a file that its worker touches, so that it knows that it has one. Needs no database.

A trainer whose lease is not renewed saves and leaves (`panollava.training.lease`).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread

from panollava.events import LEASE_FILE

LEASE_SECONDS = 120.0
"""How long a trainer goes on without a worker: a worker that starts again in this time adopts it, and not a step is lost."""
RENEW_SECONDS = 5.0

log = logging.getLogger(__name__)


@contextmanager
def renewed(directory: Path) -> Iterator[None]:
    """As long as this lasts, the trainer of this directory has a worker. In a thread of its own: whoever follows may wait for a database."""
    ended = Event()
    thread = Thread(target=copy_context().run, args=(_renew, directory / LEASE_FILE, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _renew(file: Path, ended: Event) -> None:
    while True:
        try:
            file.touch()
        except OSError as error:
            log.warning("The lease of a trainer could not be renewed: %r", error)
        if ended.wait(RENEW_SECONDS):
            return
