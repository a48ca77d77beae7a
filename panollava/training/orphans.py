"""Loader processes end when the process that started them ends, kill -9 included.

torch's own look at the parent comes every five seconds, and sees only the server where a fork server has started the loader.
"""

import multiprocessing
import os
import threading


def end_with_parent(_: int) -> None:
    """A loader's `worker_init_fn`."""
    threading.Thread(target=_end_when_parent_has, daemon=True).start()


def _end_when_parent_has() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
