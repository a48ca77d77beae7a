"""Jobs that should be worked on, as this machine sees them: is their worker dead, does their trainer live, and on which devices? Reads only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from app.models import ACTIVE, Attempt, Job, Worker
from worker import process, roster
from worker.follow import Claimed
from worker.process import Identity
from worker.roster import Member


@dataclass(frozen=True)
class Watched:
    """An active job, seen by one worker that is not at it."""

    claimed: Claimed
    worker_id: int | None
    trainer: Identity | None
    """None of one that never began."""
    devices: frozenset[str]
    is_here: bool
    """Whether it was claimed on this machine: only then can we tell whether its processes live."""
    is_left: bool
    """Whether its worker is dead for certain. A row that this worker has taken over speaks of a dead one too."""
    heard_at: datetime | None

    @classmethod
    def of(cls, job: Job, attempt: Attempt, worker: Worker | None, member: Member) -> "Watched":
        is_here = attempt.boot_id == process.boot_id()
        return cls(
            Claimed.of(attempt, member.scratch, job.run_id), job.worker_id, trainer_of(attempt), devices_of(attempt, worker), is_here,
            is_left=is_here and worker is not None and (worker.id == member.id or is_dead(worker)), heard_at=job.heartbeat_at,
        )  # fmt: skip

    @property
    def trains(self) -> bool:
        return self.is_here and self.trainer is not None and self.trainer.alive

    @property
    def is_gone(self) -> bool:
        """Worker and trainer are dead for certain."""
        return self.is_left and not self.trains


def watched(session: Session, member: Member) -> list[Watched]:
    """Every active job."""
    return [Watched.of(*row, member) for row in session.exec(_ACTIVE)]


def again(session: Session, seen: Watched, member: Member) -> tuple[Job, Watched] | None:
    """The same job, locked, as it is now; None if it is no longer that attempt's and that worker's, or was deleted."""
    session.get(Job, seen.claimed.job_id, populate_existing=True, with_for_update=True)
    row = session.exec(_ACTIVE.where(Job.id == seen.claimed.job_id).execution_options(populate_existing=True)).first()
    if row is None or (row[0].attempt, row[0].worker_id) != (seen.claimed.number, seen.worker_id):
        return None
    return row[0], Watched.of(*row, member)


def strays(session: Session) -> list[Identity]:
    """Trainers of this machine that live on although their attempt is over."""
    over = (col(Attempt.number) < Job.attempt) | col(Job.status).not_in(ACTIVE)
    return [trainer for attempt in _unseen(session, over) if (trainer := trainer_of(attempt)) and trainer.alive]


def trainers(session: Session) -> list[Identity]:
    """Every trainer that lives on this machine, whoever follows it."""
    return [trainer for attempt in _unseen(session) if (trainer := trainer_of(attempt)) and trainer.alive]


def held(session: Session, member: Member) -> frozenset[str]:
    """Devices of this machine on which a trainer lives that no living worker follows. `member` is at none."""
    attended = {each.claimed.attempt_id for each in watched(session, member) if not each.is_left}
    living = [row for row in _unseen(session) if row.id not in attended and (trainer := trainer_of(row)) and trainer.alive]
    return _union(devices_of(row, None) for row in living)


def trainer_of(attempt: Attempt) -> Identity | None:
    if attempt.pid is None or attempt.pid_started is None or attempt.boot_id is None:
        return None
    return Identity(attempt.pid, attempt.pid_started, attempt.boot_id)


def devices_of(attempt: Attempt, worker: Worker | None) -> frozenset[str]:
    return frozenset(attempt.devices or (worker.devices if worker else ()))


def is_dead(worker: Worker) -> bool:
    """For certain: it is of this machine, and its process is gone."""
    identity = roster.identity_of(worker)
    return identity.here and not identity.alive


class Contact:
    """Since when this process has reached the database without a break, by the database's clock.

    When a database or a laptop comes back every heartbeat is old at first, so nobody is judged by it before everybody could be heard.
    """

    def __init__(self, longest_gap: timedelta) -> None:
        self._longest_gap = longest_gap
        self._since = datetime.min
        self._last: datetime | None = None

    def lasts(self, now: datetime) -> timedelta:
        """Up to this moment, at which the database was reached."""
        if self._last is None or not timedelta(0) <= now - self._last <= self._longest_gap:
            self._since = now
        self._last = now
        return now - self._since

    def broke(self) -> None:
        """The database was away."""
        self._last = None


_ACTIVE = (
    select(Job, Attempt, Worker)
    .join(Attempt, (col(Attempt.job_id) == Job.id) & (col(Attempt.number) == Job.attempt))
    .outerjoin(Worker, col(Worker.id) == Job.worker_id)
    .where(col(Job.status).in_(ACTIVE), col(Attempt.boot_id).is_not(None))
)
"""One that a terminal began is nobody's to judge: it is told of when it is imported."""


def _unseen(session: Session, *which: ColumnElement[bool]) -> Sequence[Attempt]:
    """Attempts of this machine whose end nobody saw; most have ended long ago."""
    here = (col(Attempt.boot_id) == process.boot_id(), col(Attempt.exit_code).is_(None), *which)
    return session.exec(select(Attempt).join(Job, col(Job.id) == Attempt.job_id).where(*here)).all()


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
