"""Checks at work in this process: few at once, watched while they run, stopped when nobody watches, remembered when they are done.

Only results are remembered. A check that is under way is nobody's state: whoever asks again begins again.
"""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.datasets import service as datasets
from app.datasets.service import Checked, Question
from app.errors import Conflict
from app.i18n import _
from app.recent import Recent
from app.settings import Settings

AT_ONCE = 2
"""Each keeps all CPUs busy by itself; the second is there so that a short one need not wait for a long one."""
WAITING = 8
REMEMBERED = 8
TICK_SECONDS = 0.2

Key = tuple[Question, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True)
class Progress:
    """Images decoded so far. Both are 0 before the first of them, and `is_waiting` while other checks are in the way."""

    done: int = 0
    total: int = 0
    is_waiting: bool = False


class Left(Exception):
    """Nobody waits for this check any more."""


class _Work:
    """One check, between the thread that does it and the loop that watches it. Whole values are replaced, so no lock is needed."""

    def __init__(self) -> None:
        self.progress = Progress(is_waiting=True)
        self.is_left = False

    def tell(self, done: int, total: int) -> None:
        if self.is_left:
            raise Left
        self.progress = Progress(done, total)


class Checks:
    """The checks of one app process. `close` it when the process is to end."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="check")
        self._known: Recent[Key, Checked] = Recent(REMEMBERED)
        self._open = 0
        self._closed = False

    def close(self) -> None:
        """End all checks; those who watch are told so."""
        self._closed = True

    def find(self, settings: Settings, question: Question) -> Checked | None:
        """What came of the same check of the same tables before. Raises as `datasets.located` does."""
        return self._known.find(_key(datasets.located(settings, question)))

    async def watch(self, settings: Settings, question: Question) -> AsyncGenerator[Progress | Checked, None]:
        """How far the check is, every now and then, and at last what came of it. Who stops listening stops it, at its next image.

        Raises what `datasets.check` raises, and Conflict when too many wait already or the server leaves.
        """
        if self._open >= AT_ONCE + WAITING:
            raise Conflict(_("{n} checks wait already. Ask again when one of them has ended.").format(n=WAITING))
        work = _Work()
        self._open += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._check, settings, question, work)
        try:
            while not (await asyncio.wait([future], timeout=TICK_SECONDS))[0]:
                if self._closed:
                    raise Conflict(_("The server is being stopped. Ask again when it is back."))
                yield work.progress
            checked = future.result()
        finally:
            work.is_left = True
            future.cancel()
            self._open -= 1
        yield checked

    def _check(self, settings: Settings, question: Question, work: _Work) -> Checked:
        """In a thread of the pool."""
        work.tell(0, 0)
        key = _key(datasets.located(settings, question))  # before the tables are read: one that changes meanwhile is not known
        return self._known.keep(key, datasets.check(settings, question, work.tell))


def _key(question: Question) -> Key:
    """Tables beside it count too: the report names what they share."""
    stats = [(path.name, path.stat()) for path in datasets.beside(Path(question.csv))]
    return question, tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
