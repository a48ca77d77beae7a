"""A lost job in the hands of who recovers it: heard of while what its trainer left goes to the store, so that no other host takes it over."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread

from sqlmodel import Session, select

from app.jobs import service as jobs
from app.models import Job
from worker import orphans
from worker.follow import AWAY, HEARTBEAT_SECONDS, Fenced, Sessions
from worker.orphans import Watched
from worker.roster import Member

log = logging.getLogger(__name__)


class Hold:
    """Ends when the job is somebody else's, or when somebody else has been heard of at it."""

    def __init__(self, sessions: Sessions, member: Member, lost: Watched) -> None:
        self._sessions, self._member, self._lost = sessions, member, lost
        self._heard_at = lost.heard_at
        self._moved, self._taken = Event(), Event()

    def check(self, session: Session) -> int:
        """Locks the job; the devices that it needs. Raises Fenced."""
        found = orphans.again(session, self._lost, self._member)
        if found is None or found[1].heard_at != self._heard_at:
            raise Fenced
        return found[0].devices

    def tell(self, _size: int) -> None:
        """Bytes are on their way. Raises Fenced."""
        if self._taken.is_set():
            raise Fenced
        self._moved.set()

    def beat(self) -> None:
        """Say that somebody is at it, if bytes have moved since that was last said: a store that hangs is no work. Raises Fenced."""
        if not self._moved.is_set():
            return
        self._moved.clear()
        with self._sessions.writing.begin() as session:
            self.check(session)
            jobs.heartbeat(session, self._lost.claimed.job_id, self._lost.claimed.number)
            heard_at = session.exec(select(Job.heartbeat_at).where(Job.id == self._lost.claimed.job_id)).one()
        self._heard_at = heard_at

    @contextmanager
    def beating(self) -> Iterator[None]:
        """In a thread, for whoever sends waits for the store."""
        ended = Event()
        thread = Thread(target=copy_context().run, args=(self._beats, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beats(self, ended: Event) -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                self.beat()
            except Fenced:
                self._taken.set()
                return
            except AWAY as error:
                log.warning("The database is away and cannot be told that job %d is recovered. %r", self._lost.claimed.job_id, error)
