"""Take jobs: adopt a trainer that lost its worker, or claim the best queued row and start one; follow it, settle how it ended. One job at a time.

Called by doorbells and by sweeps; which comes first, or twice, makes no difference.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock

from app import doorbell
from app.artifacts import Gone
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Attempt, Job, JobStatus, Worker
from app.settings import FOREIGN_SHARE
from panollava import causes
from panollava.events import EVENTS_FILE
from worker import commands, disk, lease, outcome, process, roster
from worker.adopt import Adoption
from worker.exchange import Exchange, Interrupted
from worker.follow import AWAY, Claimed, Fenced, Follower, Sessions, follow, patiently
from worker.glance import Glance
from worker.lease import LEASE_SECONDS
from worker.outcome import Outcome
from worker.process import OUTPUT_FILE, Child, Patience, Stopping, Trainer
from worker.recover import Recovery
from worker.room import Room
from worker.roster import Member

TRAINER = (sys.executable, "-m", "panollava")
DRAIN = "worker drain"

log = logging.getLogger(__name__)


@dataclass
class Work:
    """A worker's hands. Set `leaving` to have the job at hand saved and queued again, and no other one begun."""

    sessions: Sessions
    member: Member
    broker_url: str
    environment: Mapping[str, str]
    trainer: Sequence[str] = TRAINER
    patience: Patience = field(default_factory=Patience)
    """How long a trainer may take to stop."""
    lease_seconds: float = LEASE_SECONDS
    """How long one goes on without a worker."""
    foreign_share: float = FOREIGN_SHARE
    """Of a device's memory, that others may hold without keeping this worker from taking jobs."""
    least_free: int = 0
    """Bytes on the disk it writes to, below which a job of which nothing is known is not begun."""
    leaving: Event = field(default_factory=Event)
    recovery: Recovery = field(init=False)
    adoption: Adoption = field(init=False)
    glance: Glance = field(init=False)
    room: Room = field(init=False)
    _held_back: str | None = None
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.recovery = Recovery(self.sessions, self.member, self.broker_url)
        self.adoption = Adoption(self.sessions, self.member, self.broker_url)
        self.glance = Glance(self.sessions, self.member, self.foreign_share)
        self.room = Room(self.sessions, self.member, self.least_free)

    def take(self) -> None:
        """Do what there is for this worker's devices, until nothing is. A second caller waits, then finds the rest."""
        with self._lock:
            while not self.leaving.is_set() and self._take_one():
                pass

    def _take_one(self) -> bool:
        """What others left behind comes first: it may be on our devices. False if there was nothing to do."""
        self.recovery.everybody()
        if adopted := self.adoption.take():
            with adopted[0].named():
                self._do(*adopted)
            return True
        if self._must_wait() or (claimed := self._claim()) is None:
            return False
        with claimed.named():
            self._do(claimed)
        return True

    def _must_wait(self) -> bool:
        """Whether somebody else is on this worker's devices, or its disk is full. Its row says so, for those who wait for it."""
        why = self.adoption.held_by() or self.glance.occupied_by() or self.room.lacks()
        if why != self._held_back:
            roster.hold_back(self.sessions.writing, self.member, why)
            self._held_back = why
        return why is not None

    def wait(self) -> None:
        """Until no job is at hand."""
        with self._lock:
            pass

    def _claim(self) -> Claimed | None:
        """Room is looked for again, because another job may be next by now."""
        with self.sessions.writing.begin() as session:
            attempt = jobs.claim(session, session.get_one(Worker, self.member.id), self.room.suffices)
            claimed = Claimed.of(attempt, self.member.scratch, session.get_one(Job, attempt.job_id).run_id) if attempt else None
        if claimed:
            with claimed.named():
                log.info("Job %d, attempt %d, in %s", claimed.job_id, claimed.number, claimed.directory)
            doorbell.announce(self.broker_url)
        return claimed

    def _do(self, claimed: Claimed, trainer: Trainer | None = None) -> None:
        """To its end, with a trainer that is there already or a new one."""
        follower = Follower(self.sessions, claimed, self.broker_url)
        exchange = Exchange(self.sessions, claimed, self.member.scratch, follower, self.leaving)
        try:
            if trainer is None:
                exchange.bring()  # into an emptied directory
            with lease.renewed(claimed.directory), exchange.storing():
                if trainer is None:
                    trainer = child = self._start(claimed)
                    self._introduce(claimed, child)
                stopping = follow(trainer, follower, claimed.directory, leaving=self.leaving, patience=self.patience, check=exchange.check)
            self._settle(claimed, trainer, stopping)
        except (Interrupted, Gone) as error:  # before a trainer began or after it has ended
            self._cut_short(claimed, error)
        except Fenced:
            log.warning("Job %d is no longer attempt %d's: its trainer is killed and nothing more is written.", claimed.job_id, claimed.number)
            _kill(trainer)
        except AWAY:  # the database is: when it is back, this worker or another one finds that nobody is at the job
            _kill(trainer)
            raise
        except Exception as error:  # a defect of ours, a full disk: whatever it is, the job must not look alive
            _kill(trainer)
            self._give_up(claimed, error)
            raise

    def _start(self, claimed: Claimed) -> Child:
        with self.sessions.reading() as session:
            job, attempt = session.get_one(Job, claimed.job_id), session.get_one(Attempt, claimed.attempt_id)
            arguments = commands.prepare(session, job, attempt, self.member.scratch)
        return process.start([*self.trainer, *arguments], claimed.directory, self.member.devices, self.environment, self.lease_seconds)

    def _introduce(self, claimed: Claimed, child: Child) -> None:
        """Let the database know the trainer before the trainer does anything. Raises Fenced."""
        with self.sessions.writing.begin() as session:
            if not jobs.heartbeat(session, claimed.job_id, claimed.number):
                raise Fenced
            attempt = session.get_one(Attempt, claimed.attempt_id)
            attempt.pid, attempt.pid_started, attempt.boot_id = child.identity.pid, child.identity.started, child.identity.boot_id
            session.add(attempt)
        child.go()

    def _settle(self, claimed: Claimed, trainer: Trainer, stopping: Stopping | None) -> None:
        """Write down how it ended, which may queue more work. Raises Fenced."""
        word, tail = outcome.last_word(claimed.directory / EVENTS_FILE), outcome.last_lines(claimed.directory / OUTPUT_FILE)
        result = outcome.judge(
            word, trainer.exit_code, tail, asked=stopping is not None, killed=stopping is not None and stopping.killed,
            ran_out_of_memory=trainer.ran_out_of_memory, has_room=disk.has_room(claimed.directory),
        )  # fmt: skip
        self._end(claimed, result, trainer.exit_code)

    def _cut_short(self, claimed: Claimed, error: Interrupted | Gone) -> None:
        """End a job for which the store has not what it needs, or does not answer when it is to end."""
        status, reason = (JobStatus.failed, "missing_file") if isinstance(error, Gone) else (JobStatus.stopped, "not_stored")
        try:
            self._end(claimed, Outcome(status, reason, str(error)))
        except Fenced:
            log.warning("Job %d is no longer attempt %d's; nothing more is written.", claimed.job_id, claimed.number)

    def _end(self, claimed: Claimed, result: Outcome, code: int | None = None) -> None:
        """Raises Fenced."""
        job = patiently(lambda: self._finish(claimed, result, code), self.leaving)
        log.info("Job %d, attempt %d: %s (%s)", claimed.job_id, claimed.number, job.status, job.reason or result.reason)
        doorbell.ring(job.devices, self.broker_url)
        doorbell.announce(self.broker_url)

    def _finish(self, claimed: Claimed, result: Outcome, code: int | None) -> Job:
        """One transaction. A job that only this worker's leaving stopped is queued again. Raises Fenced."""
        with self.sessions.writing.begin() as session:
            if (job := session.get(Job, claimed.job_id, with_for_update=True)) is None:
                raise Fenced
            drained = result.status is JobStatus.stopped and self.leaving.is_set() and job.status is not JobStatus.stopping
            mine = finish(
                session, job.id, claimed.number, result.status,
                actor=DRAIN if drained else self.member.name, reason=result.reason, detail=result.detail, best=result.best, exit_code=code,
                files=claimed.directory,
            )  # fmt: skip
            if not mine:
                raise Fenced
            if drained:
                jobs.retry(session, job, DRAIN, reason="worker_drained")
            return job

    def _give_up(self, claimed: Claimed, error: Exception) -> None:
        """Fail the job for what the worker met. If the database is away by now, the job is found before the next claim."""
        try:
            with self.sessions.writing.begin() as session:
                cause = causes.of(error)
                reason, detail = cause or "infrastructure", causes.said(error) if cause else repr(error)
                finish(session, claimed.job_id, claimed.number, JobStatus.failed, actor=self.member.name, reason=reason, detail=detail)
        except AWAY:
            log.exception("Job %d could not be failed", claimed.job_id)


def _kill(trainer: Trainer | None) -> None:
    if trainer:
        trainer.kill()
