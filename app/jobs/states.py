"""The states of a job and the only two functions that write one: `enqueue` gives the first, `move` every other.

What a move means for runs, evaluations and queues is decided by who asks for it.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, update

from app import db
from app.models import ACTIVE, ENDED, Job, JobStatus, Run, StageRun, Transition

MOVES: dict[JobStatus, set[JobStatus]] = {
    JobStatus.queued: {JobStatus.starting, JobStatus.stopping, JobStatus.stopped},
    JobStatus.starting: {JobStatus.running, JobStatus.stopping, JobStatus.failed, JobStatus.lost},
    JobStatus.running: {JobStatus.succeeded, JobStatus.stopping, JobStatus.failed, JobStatus.lost},
    JobStatus.stopping: {JobStatus.stopped, JobStatus.succeeded, JobStatus.failed, JobStatus.lost},
    JobStatus.lost: {JobStatus.queued, JobStatus.failed},
    JobStatus.failed: {JobStatus.queued},
    JobStatus.stopped: {JobStatus.queued},
    JobStatus.succeeded: {JobStatus.queued},
}
PATIENCE = timedelta(seconds=30)
"""Silence after which a job counts as lost. A worker that lives is heard every 5 s."""


def enqueue(session: Session, job: Job, actor: str, reason: str) -> Job:
    """Put a new job in the queue. The caller commits, then rings."""
    job.queued_at = db.now(session)
    session.add(job)
    session.flush()
    job.rank = job.id
    record(session, job, None, actor, reason)
    return job


def move(session: Session, job_id: int, *, old: JobStatus, new: JobStatus, attempt: int, actor: str, reason: str, **values: Any) -> bool:
    """Change the status unless somebody changed it first; True if this caller did it. The caller commits, with whatever belongs to the move.

    `values` are further columns of the same UPDATE. The move to `starting` begins the next attempt. Raises ValueError for a move that
    no job can make.
    """
    if new not in MOVES[old]:
        raise ValueError(f"A job cannot go from {old} to {new}.")
    ended = new in ENDED
    values |= {"reason": reason, "finished_at": db.now(session)} if ended else {"reason": None, "detail": None, "finished_at": None}
    number = attempt + 1 if new is JobStatus.starting else attempt
    unchanged = (col(Job.id) == job_id, col(Job.status) == old, col(Job.attempt) == attempt)
    query = update(Job).where(*unchanged).values(status=new, attempt=number, **values).execution_options(synchronize_session=False)
    if session.exec(query).rowcount != 1:
        return False
    record(session, session.get_one(Job, job_id, populate_existing=True), old, actor, reason)
    return True


def move_on(session: Session, job: Job, new: JobStatus, actor: str, reason: str, **values: Any) -> bool:
    """`move`, from the state and the attempt in which this session saw the job; afterwards `job` is as the database has it."""
    return move(session, job.id, old=job.status, new=new, attempt=job.attempt, actor=actor, reason=reason, **values)


def is_lost(job: Job, now: datetime, patience: timedelta = PATIENCE) -> bool:
    """Whether nobody has been heard to work on a job that should be worked on; true at once, also when no worker lives to say so."""
    return job.status in ACTIVE and job.heartbeat_at is not None and now - job.heartbeat_at > patience


def record(session: Session, job: Job, old: JobStatus | None, actor: str, reason: str) -> None:
    """The history and the news of a status that was just written, or of a job that was handed over in the same one."""
    session.add(Transition(job_id=job.id, attempt=job.attempt, old=old, new=job.status, at=db.now(session), actor=actor, reason=reason))
    stage = session.get_one(StageRun, job.stage_id).stage if job.stage_id else None
    payload = {"job_id": job.id, "kind": job.kind, "status": job.status, "attempt": job.attempt, "stage": stage, "reason": reason}
    db.emit(session, "job", payload | {"evaluation_id": job.evaluation_id, "export_id": job.export_id}, run_id=job.run_id)
    if job.status is JobStatus.queued:  # what works is in the lists
        session.exec(update(Run).where(col(Run.id) == job.run_id, col(Run.archived_at).is_not(None)).values(archived_at=None))
