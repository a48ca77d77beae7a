"""Jobs whose worker is gone: bring in what their trainers still wrote, then queue them again from the last good checkpoint.

A worker of this machine is gone when its process is; one elsewhere when it has been silent for too long. A trainer that
outlived its worker is stopped here, saving first; adopting it instead, so that it trains on, is a later issue.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlmodel import Session, col, select

from app import db, doorbell
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.jobs.states import PATIENCE, is_lost
from app.models import ACTIVE, Attempt, Job, Worker
from panollava.events import EVENTS_FILE
from worker import outcome, process, roster, uploads
from worker.follow import AWAY, BATCH_BYTES, Claimed, Fenced, Sessions, take_in
from worker.process import OUTPUT_FILE, Identity, Patience
from worker.roster import Member

CONFIRM_SECONDS = 15.0
"""A silent job is looked at again after this long: when a database or a laptop comes back, every heartbeat is old at first."""

log = logging.getLogger(__name__)


@dataclass
class Recovery:
    """One worker's eye on the others, and on what a predecessor of its own name left behind."""

    sessions: Sessions
    member: Member
    broker_url: str
    patience: Patience
    """How long a trainer may take to stop."""
    scratch: Path | None = None
    """Where this host has its part of artifacts that belong into a store."""
    silence: timedelta = PATIENCE
    confirm_seconds: float = CONFIRM_SECONDS
    _suspects: dict[int, tuple[datetime | None, float]] = field(default_factory=dict)

    @property
    def _actor(self) -> str:
        return f"recovery by {self.member.name}"

    def others(self) -> None:
        """Recover the jobs of workers that are gone, and end trainers of this machine that nobody follows any more."""
        with self.sessions.reading() as session:
            strays = _strays(session)
            lost = [Claimed.of(attempt, self.scratch) for job, attempt, worker in _active(session) if self._is_gone(job, worker, db.now(session))]
        for stray in strays:
            if stray.alive:
                log.warning("Trainer %d belongs to an attempt that was given up; killing it.", stray.pid)
                stray.kill()
        self._recover(lost)

    def own(self) -> None:
        """Recover the active jobs of this very worker. Only for a caller who knows that it is at none."""
        with self.sessions.reading() as session:
            left = [Claimed.of(attempt, self.scratch) for _job, attempt, worker in _active(session) if worker and worker.id == self.member.id]
        self._recover(left)

    def _is_gone(self, job: Job, worker: Worker | None, now: datetime) -> bool:
        if worker and worker.id == self.member.id:
            return False
        if worker and roster.identity_of(worker).here:
            return not roster.identity_of(worker).alive
        return is_lost(job, now, self.silence) and self._stays_silent(job)

    def _stays_silent(self, job: Job) -> bool:
        heard, since = self._suspects.get(job.id, (None, 0.0))
        if heard != job.heartbeat_at:
            since = time.monotonic()
            self._suspects[job.id] = job.heartbeat_at, since
        return time.monotonic() - since >= self.confirm_seconds

    def _recover(self, lost: Sequence[Claimed]) -> None:
        for claimed in lost:
            log.warning("Nobody works on job %d, attempt %d, any more; recovering it.", claimed.job_id, claimed.number)
            try:
                ended = self._stop_trainer(claimed)
                self._bring_in(claimed, ended)
                if ended:
                    uploads.store_rest(self.sessions, claimed, self.scratch)
                self._settle(claimed)
            except Fenced:
                log.warning("Somebody else has recovered job %d.", claimed.job_id)
            except AWAY:
                raise
            except Exception:  # an unreadable directory, say: one such job must not keep the others from being recovered
                log.exception("Job %d could not be recovered; trying again at the next sweep.", claimed.job_id)

    def _stop_trainer(self, claimed: Claimed) -> bool:
        """Whether it has ended for sure; one elsewhere may still write."""
        with self.sessions.reading() as session:
            trainer = _trainer(session.get_one(Attempt, claimed.attempt_id))
        if trainer and trainer.here:
            process.stop_and_wait(trainer, claimed.directory, self.patience)
        return trainer is None or trainer.here

    def _bring_in(self, claimed: Claimed, ended: bool) -> None:
        """All that its trainer wrote; of one that may still write, what is there now. Raises Fenced."""
        taken = BATCH_BYTES
        while taken > (0 if ended else BATCH_BYTES // 2):
            with self.sessions.writing.begin() as session:
                _still_his(session, claimed)
                taken = take_in(session, claimed)

    def _settle(self, claimed: Claimed) -> None:
        """What the attempt came to: its own end, or another attempt. Raises Fenced."""
        result = outcome.judge_orphan(outcome.last_word(claimed.directory / EVENTS_FILE), outcome.last_lines(claimed.directory / OUTPUT_FILE))
        with self.sessions.writing.begin() as session:
            job = _still_his(session, claimed)
            if result:
                finish(
                    session, job.id, job.attempt, result.status,
                    actor=self._actor, reason=result.reason, detail=result.detail, best=result.best, files=claimed.directory,
                )  # fmt: skip
            else:
                jobs.lose(session, job, actor=self._actor)
            devices = job.devices
        doorbell.ring(devices, self.broker_url)
        doorbell.announce(self.broker_url)


def _active(session: Session) -> Sequence[tuple[Job, Attempt, Worker | None]]:
    """Jobs that somebody works on, with the attempt and who should be at it."""
    query = select(Job, Attempt, Worker).join(Attempt, (col(Attempt.job_id) == Job.id) & (col(Attempt.number) == Job.attempt))
    query = query.outerjoin(Worker, col(Worker.id) == Job.worker_id).where(col(Job.status).in_(ACTIVE))
    return session.exec(query).all()


def _strays(session: Session) -> Sequence[Identity]:
    """Trainers of this machine whose end nobody saw and whose attempt is over; most have ended long ago."""
    over = (col(Attempt.number) < Job.attempt) | col(Job.status).not_in(ACTIVE)
    unseen = (col(Attempt.boot_id) == process.boot_id(), col(Attempt.exit_code).is_(None))
    rows = session.exec(select(Attempt).join(Job, col(Job.id) == Attempt.job_id).where(over, *unseen))
    return [trainer for row in rows if (trainer := _trainer(row))]


def _trainer(attempt: Attempt) -> Identity | None:
    if attempt.pid is None or attempt.pid_started is None or attempt.boot_id is None:
        return None
    return Identity(attempt.pid, attempt.pid_started, attempt.boot_id)


def _still_his(session: Session, claimed: Claimed) -> Job:
    """The job, locked, while it is this attempt's. Raises Fenced."""
    job = session.get_one(Job, claimed.job_id, populate_existing=True, with_for_update=True)
    if job.attempt != claimed.number or job.status not in ACTIVE:
        raise Fenced
    return job
