"""The object store beside a job: downloads before the trainer starts, uploads while it works, and what is left before the job ends.

In a thread, so that heartbeats, metrics and logs go on. A store that does not answer or a disk that is full is waited for, and people are told;
only somebody who wants the job to end ends the waiting. Where artifacts lie in directories nothing of this happens.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar

from app import artifacts
from app.artifacts import Away
from app.events import service as events
from app.i18n import _
from worker import scratch
from worker.downloads import Downloads
from worker.follow import AWAY, POLL_SECONDS, Claimed, Follower, Sessions
from worker.uploads import Uploads

ROUND_SECONDS = 1.0
"""How often it looks for a checkpoint that waits."""
LONGEST_WAIT = 30.0
"""Seconds between two tries of a store that is away."""
LAST_SECONDS = 20.0
"""How long a store may stay away once somebody wants the job to end."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Interrupted(Exception):
    """The job is to end and the store does not answer; the message says what it has not got."""


@dataclass
class Exchange:
    """One attempt's."""

    sessions: Sessions
    claimed: Claimed
    root: Path | None
    """The scratch directory."""
    follower: Follower
    leaving: Event
    _over: Event = field(default_factory=Event)
    """The trainer has ended and the database holds all it wrote."""
    _given_up: Event = field(default_factory=Event)
    _end_at: float | None = None
    _uploads: "Future[None] | None" = None

    def bring(self) -> None:
        """What the job names, here. Raises Gone, Interrupted and Fenced."""
        if not (self.root and artifacts.is_remote(self.claimed.name)):
            return
        scratch.begin(self.claimed)
        downloads = Downloads(self.sessions, self.claimed, self.root, self.say, self._check_end)
        with self._in_a_thread(lambda: self._patiently(downloads.bring, last_seconds=0)) as done:
            self._await(done)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """While the trainer works, and behind the block until the store has everything. Raises Interrupted and Fenced."""
        if not (self.root and artifacts.is_remote(self.claimed.name)):
            yield
            return
        uploads = Uploads(self.sessions, self.claimed, self.root, self._check_given_up)
        with self._in_a_thread(lambda: self._upload(uploads)) as done:
            self._uploads = done
            yield
            self._over.set()
            self._await(done)

    def check(self) -> None:
        """Raises what has ended the uploads while the trainer works. It can only be a defect of ours, which is no news for the end of a training."""
        if self._uploads and self._uploads.done():
            self._uploads.result()

    def say(self, level: str, text: str) -> None:
        """To the log of this worker, and to whoever looks at the run."""
        log.log(logging.WARNING if level == "warning" else logging.INFO, "Job %d: %s", self.claimed.job_id, text)
        try:
            with self.sessions.writing.begin() as session:
                events.note(session, self.claimed.job_id, self.claimed.number, level, text)
        except AWAY as error:
            log.warning("The database is away and cannot be told. %r", error)

    def _upload(self, uploads: Uploads) -> None:
        while not self._over.wait(ROUND_SECONDS):
            self._patiently(uploads.round, LAST_SECONDS)
        for problem in self._patiently(uploads.rest, LAST_SECONDS):
            self.say("warning", problem)

    def _patiently(self, action: Callable[[], T], last_seconds: float) -> T:
        """Again and again while the store, the database or the disk is away, so long also when the job is to end. Raises Interrupted."""
        delay, told = 1.0, False
        while True:
            try:
                result = action()
            except (Away, *AWAY, OSError) as error:
                if not told:
                    self.say("warning", _("Waiting for the store or the disk. {error}").format(error=error))
                told = True
                self._pause(delay, last_seconds, error)
                delay = min(LONGEST_WAIT, 2 * delay)
            else:
                if told:
                    self.say("info", _("Store and disk answer again."))
                return result

    def _pause(self, seconds: float, last_seconds: float, error: Exception) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._given_up.wait(POLL_SECONDS) or (self._end_at and time.monotonic() > self._end_at + last_seconds):
                text = _("What the store has not got lies in {directory} on {host}. {error}")
                raise Interrupted(text.format(directory=self.claimed.directory, host=socket.gethostname(), error=error))

    def _check_given_up(self, _size: int) -> None:
        if self._given_up.is_set():
            raise Interrupted(_("The attempt is over."))

    def _check_end(self, size: int) -> None:
        """Nothing is lost by leaving off a download."""
        self._check_given_up(size)
        if self._end_at:
            raise Interrupted(_("It had not begun."))

    @contextmanager
    def _in_a_thread(self, action: Callable[[], None]) -> Iterator["Future[None]"]:
        """It ends with the block; soon, if the block raises."""
        with ThreadPoolExecutor(1, "store") as pool:
            done = pool.submit(action)
            try:
                yield done
            except BaseException:
                self._given_up.set()
                self._over.set()
                raise

    def _await(self, done: "Future[None]") -> None:
        """Heartbeats until it is done. Raises what it raises, and Fenced."""
        while not done.done():
            self.follower.round()
            if self._end_at is None and (self.follower.stop_asked or self.leaving.is_set()):
                self._end_at = time.monotonic()
            wait([done], POLL_SECONDS)
        done.result()
