"""Bring what a trainer writes into the database while it runs, and people's wishes to the trainer.

The place in both files is in the attempt's row and moves in the transaction that stores the bytes, so any process can
take over at any byte, and nothing is lost or doubled. How an attempt ended is judged elsewhere.
"""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TypeVar

from sqlalchemy.exc import InternalError
from sqlalchemy.orm import sessionmaker
from sqlmodel import Session, select

from app import artifacts, db, doorbell, ingest
from app.checkpoints import service as checkpoints
from app.jobs import service as jobs
from app.models import Attempt, Job, JobStatus
from app.telemetry.json_logs import about
from panollava.events import EVENTS_FILE, SAVE_FILE
from worker import links
from worker.process import OUTPUT_FILE, Patience, Stopping, Trainer

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 5.0
BATCH_BYTES = 1 << 20
"""About the most bytes of one file in one transaction, so that catching up never holds the database for long."""
LONGEST_WAIT = 5.0
"""Seconds between two tries of a database that is away."""
AWAY = (*db.AWAY, InternalError)
"""The database is away or, as one that is failed over, may only be read: worth another try."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Fenced(Exception):
    """A newer attempt owns the job, or it was deleted with its run, so this one may write nothing more."""


@dataclass(frozen=True)
class Sessions:
    """The database, as readers that wait for nobody and as writers."""

    reading: sessionmaker[Session]
    writing: sessionmaker[Session]


@dataclass(frozen=True)
class Claimed:
    """An attempt by its numbers, good in any session."""

    job_id: int
    attempt_id: int
    number: int
    directory: Path
    """On this host."""
    name: str
    """Of the directory as everybody knows it: a path too, or its address in a store."""
    run_id: int | None = None

    @classmethod
    def of(cls, attempt: Attempt, scratch: Path | None = None, run_id: int | None = None) -> "Claimed":
        return cls(attempt.job_id, attempt.id, attempt.number, artifacts.local(attempt.directory, scratch), attempt.directory, run_id)

    def named(self) -> AbstractContextManager[None]:
        """As long as this lasts, log lines say that they are about it."""
        return about(run=self.run_id, job=self.job_id, attempt=self.number)


@dataclass(frozen=True)
class Said:
    """What a trainer's files hold beyond where the database is, a batch of each, and where that was."""

    lines: bytes
    event_offset: int
    text: bytes
    log_offset: int
    gone: Collection[str] = ()
    """Checkpoints it tells of that the trainer has removed since. Only where files go to a store: elsewhere who wants one looks for its file."""

    def __len__(self) -> int:
        return len(self.lines) + len(self.text)


def hear(sessions: Sessions, claimed: Claimed) -> Said:
    """Read on in both files, in no transaction: nobody else waits for a share that hangs. Raises Fenced."""
    with sessions.reading() as session:
        query = select(Attempt.event_offset, Attempt.log_offset).where(Attempt.id == claimed.attempt_id)
        offsets = session.exec(query).first()
    if offsets is None:
        raise Fenced
    event_offset, log_offset = offsets
    lines = whole_lines(claimed.directory / EVENTS_FILE, event_offset)
    gone = links.make(claimed.directory, lines) if artifacts.is_remote(claimed.name) else ()
    return Said(lines, event_offset, some_bytes(claimed.directory / OUTPUT_FILE, log_offset), log_offset, gone)


def take_in(session: Session, claimed: Claimed, said: Said) -> None:
    """Store what was heard, but for what somebody else has stored since; the caller commits. Raises Fenced."""
    job = session.get(Job, claimed.job_id, with_for_update=True)  # whoever recovers the job reads the same files
    if job is None:
        raise Fenced
    attempt = session.get_one(Attempt, claimed.attempt_id)
    if said.lines and attempt.event_offset == said.event_offset and not ingest.events(session, job, attempt, said.lines, said.gone):
        raise Fenced
    if said.text and attempt.log_offset == said.log_offset and not ingest.log(session, job, attempt, said.text):
        raise Fenced


def whole_lines(path: Path, offset: int, most: int = BATCH_BYTES) -> bytes:
    """The whole lines from the offset on, about `most` bytes of them and at least one if there is one."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(most)
        if b"\n" not in data:
            data += file.readline()
    return data[: data.rfind(b"\n") + 1]


def some_bytes(path: Path, offset: int, most: int = BATCH_BYTES) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(most)


class Follower:
    """One attempt's way into the database, round by round. A database or a disk that is away costs rounds, never bytes."""

    def __init__(self, sessions: Sessions, claimed: Claimed, broker_url: str) -> None:
        self._sessions, self._claimed, self._broker_url = sessions, claimed, broker_url
        self._stored = (0, 0)
        self._beat_at = self._retry_at = time.monotonic()
        self._delay = 0.0
        self._passed_on: datetime | None = None
        """When a checkpoint was asked for that the trainer knows of."""
        self.away: Exception | None = None
        """Why the last round failed, if it did."""
        self.stop_asked = False

    def round(self) -> int | None:
        """Bytes brought in; None when the database or the disk is away. Raises Fenced."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            taken = self._round()
        except (*AWAY, OSError) as error:  # a disk that is full or a share that is away is no reason to end the trainer either
            self._back_off(error)
            return None
        if self.away:
            log.warning("The database and the disk are back; job %d catches up.", self._claimed.job_id)
        self.away, self._delay = None, 0.0
        return taken

    def _round(self) -> int:
        with self._sessions.reading() as session:
            wishes = session.exec(select(Job.status, Job.save_requested_at).where(Job.id == self._claimed.job_id)).first()
        if wishes is None:
            raise Fenced
        status, save_at = wishes
        self.stop_asked = status is JobStatus.stopping
        beat = time.monotonic() >= self._beat_at
        if not (beat or save_at or self._grown()):
            return 0
        said = hear(self._sessions, self._claimed)
        if save_at and save_at != self._passed_on:
            (self._claimed.directory / SAVE_FILE).touch()  # before the wish is taken: whoever dies in between saves twice, not never
            self._passed_on = save_at
        with self._sessions.writing.begin() as session:
            if beat and not jobs.heartbeat(session, self._claimed.job_id, self._claimed.number):
                raise Fenced
            if save_at:
                jobs.take_save(session, self._claimed.job_id, self._claimed.number)
            take_in(session, self._claimed, said)
            attempt = session.get_one(Attempt, self._claimed.attempt_id)  # as `take_in` has left it
            stored = attempt.event_offset, attempt.log_offset
        self._stored = stored
        self._let_go(links.removed(said.lines) if artifacts.is_remote(self._claimed.name) else ())
        if beat:
            self._beat_at = time.monotonic() + HEARTBEAT_SECONDS
        if said:
            doorbell.announce(self._broker_url)
        return len(said)

    def _let_go(self, removed: Collection[str]) -> None:
        """The bytes of what the trainer has removed, unless its row has stayed for somebody who wants it."""
        for path in removed:
            with self._sessions.reading() as session:
                is_wanted = checkpoints.at(session, artifacts.resolve(self._claimed.name, path)) is not None
            if not is_wanted:
                links.forget(self._claimed.directory, path)

    def _grown(self) -> bool:
        names = (EVENTS_FILE, OUTPUT_FILE)
        return any(_size(self._claimed.directory / name) > stored for name, stored in zip(names, self._stored, strict=True))

    def _back_off(self, error: Exception) -> None:
        if not self.away:
            log.warning("The database or the disk is away; job %d goes on and its files are read later. %r", self._claimed.job_id, error)
        self.away = error
        self._delay = min(LONGEST_WAIT, 2 * self._delay or POLL_SECONDS)
        self._retry_at = time.monotonic() + self._delay


def follow(
    trainer: Trainer, follower: Follower, directory: Path, *, leaving: Event, patience: Patience, check: Callable[[], None] = lambda: None
) -> Stopping | None:  # fmt: skip
    """Until the trainer has ended and the database holds all it wrote: the stop, if there was one.

    Raises Fenced, what is away when the worker is to leave and cannot store the rest, and what `check` raises.
    """
    stopping: Stopping | None = None
    while True:
        check()
        ended = trainer.has_ended()  # before the round, so that the round after the end sees every byte
        taken = follower.round()
        if ended and taken == 0:
            return stopping
        if ended and follower.away and leaving.is_set():
            raise follower.away
        if not ended and stopping is None and (follower.stop_asked or leaving.is_set()):
            stopping = Stopping(trainer.identity, directory, patience)
        if stopping:
            stopping.press()
        if not taken or (not ended and taken < BATCH_BYTES):
            time.sleep(POLL_SECONDS)


def patiently(action: Callable[[], T], leaving: Event) -> T:
    """Do it in a transaction of its own, again and again while the database is away; raises its error when the worker is to leave."""
    delay = POLL_SECONDS
    while True:
        try:
            return action()
        except AWAY as error:
            log.warning("The database is away. %r", error)
            if leaving.wait(delay):
                raise
            delay = min(LONGEST_WAIT, 2 * delay)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
