"""What people ask of a job, and what a worker does with one, short of finishing it (`app.jobs.finish`).

Every verb works in the caller's transaction and changes a status only by `move`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, func, select, update

from app import artifacts, db
from app.checkpoints import service as checkpoints
from app.errors import Conflict, NotFound
from app.i18n import _
from app.jobs import order, pauses, saved
from app.jobs.states import enqueue, is_lost, move, move_on, record
from app.jobs.waiting import why_waiting
from app.models import ACTIVE, ENDED, Attempt, Checkpoint, Job, JobStatus, Transition, Worker
from panollava.events import STOP_FILE

__all__ = ["enqueue", "is_lost", "move", "why_waiting"]
MOST_LOSSES = 10
"""Times `max_attempts`: the most attempts that are lost in all until a person asks again, also where each of them had saved something new."""


def get(session: Session, job_id: int) -> Job:
    """Raises NotFound."""
    if (job := session.get(Job, job_id)) is None:
        raise NotFound(_("There is no job {id}.").format(id=job_id))
    return job


def attempt_of(session: Session, job: Job) -> Attempt:
    """The newest attempt of a job that was claimed at least once."""
    return session.exec(select(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempt)).one()


# What a worker does


def claim(session: Session, worker: Worker, suits: Callable[[Session, Job], bool] = lambda _session, _job: True) -> Attempt | None:
    """The best queued job for as many devices as the worker owns is now its own, as a new attempt with an empty directory.

    None if there is none, if it does not suit, or if its queue is paused.
    """
    order.lock(session)
    if pauses.of(session, len(worker.devices)):
        return None
    while (job := best_queued(session, len(worker.devices))) and suits(session, job):
        now = db.now(session)
        mine = {"worker_id": worker.id, "started_at": now, "heartbeat_at": now, "progress": {}}
        if move_on(session, job, JobStatus.starting, worker.name, "claimed", **mine):
            return _begin(session, job, worker)
    return None


def best_queued(session: Session, devices: int) -> Job | None:
    """The highest priority, then the oldest, unless somebody moved it."""
    query = select(Job).where(Job.status == JobStatus.queued, Job.devices == devices).order_by(*order.TAKEN).limit(1)
    return session.exec(query.execution_options(populate_existing=True)).first()


def _begin(session: Session, job: Job, worker: Worker) -> Attempt:
    resumed = session.exec(select(Checkpoint.step).where(Checkpoint.path == job.resume_from)).first() or 0
    directory = artifacts.join(job.directory, f"attempt-{job.attempt}")
    if not artifacts.is_remote(directory):  # of one in a store the worker makes its own
        Path(directory).mkdir(parents=True, exist_ok=True)  # it exists if an earlier claim of this number did not get as far as its commit
    attempt = Attempt(
        job_id=job.id, number=job.attempt, worker_id=worker.id, boot_id=worker.boot_id, devices=worker.devices,
        directory=directory, resumed_step=resumed, started_at=db.now(session),
    )  # fmt: skip
    session.add(attempt)
    session.flush()
    return attempt


def adopt(session: Session, job: Job, attempt: int, left_by: int | None, worker: Worker) -> bool:
    """This worker goes on with what another one left behind, in the same attempt. False unless the job is still that attempt's and that worker's."""
    left = (col(Job.id) == job.id, col(Job.attempt) == attempt, col(Job.worker_id) == left_by, col(Job.status).in_(ACTIVE))
    query = update(Job).where(*left).values(worker_id=worker.id, heartbeat_at=db.now(session)).execution_options(synchronize_session=False)
    if session.exec(query).rowcount != 1:
        return False
    session.refresh(job)
    taken = attempt_of(session, job)
    taken.worker_id = worker.id
    session.add(taken)
    record(session, job, job.status, worker.name, "adopted")
    return True


def heartbeat(session: Session, job_id: int, attempt: int, progress: Mapping[str, Any] | None = None) -> bool:
    """Still at it. False when the job is no longer this attempt's: drop it and write nothing more."""
    values: dict[str, Any] = {"heartbeat_at": db.now(session)} | ({} if progress is None else {"progress": dict(progress)})
    mine = (col(Job.id) == job_id, col(Job.attempt) == attempt, col(Job.status).in_(ACTIVE))
    return session.exec(update(Job).where(*mine).values(**values)).rowcount == 1


def take_save(session: Session, job_id: int, attempt: int) -> bool:
    """Whether somebody has asked for a checkpoint since this was last called."""
    asked = (col(Job.id) == job_id, col(Job.attempt) == attempt, col(Job.save_requested_at).is_not(None))
    return session.exec(update(Job).where(*asked).values(save_requested_at=None)).rowcount == 1


def lose(session: Session, job: Job, actor: str, reason: str = "worker_lost", detail: str | None = None) -> bool:
    """The attempt has ended by no fault of its own: queue the next one from the last good checkpoint, or give up. False if the job has moved on.

    Put what the attempt's files still hold into the database before this; it is fenced off afterwards. Losses count in a row, and an
    attempt that saved something new before it was lost ends the row. A job that was to stop is stopped, not tried again, and says what was saved.
    """
    seen = job.attempt
    session.refresh(job, with_for_update=True)
    if job.attempt != seen or job.status not in ACTIVE:
        return False
    attempt, was_stopping, asked_at = attempt_of(session, job), job.status is JobStatus.stopping, job.stop_requested_at
    move_on(session, job, JobStatus.lost, actor, reason)
    attempt.ended_at = db.now(session)
    losses = 0 if _has_saved(session, attempt) else job.losses + 1
    if (text := _used_up(session, job, losses)) and not was_stopping:
        move_on(session, job, JobStatus.failed, actor, reason, detail=f"{text} {detail or ''}".strip(), losses=losses)
        return True
    move_on(session, job, JobStatus.queued, actor, reason, losses=losses, **_fresh(session, job))
    if was_stopping:
        told = "\n".join(filter(None, (saved.words(session, job), detail))) or None
        move_on(session, job, JobStatus.stopped, actor, "lost_while_stopping", stop_requested_at=asked_at, detail=told)
    return True


def _used_up(session: Session, job: Job, losses: int) -> str | None:
    """Why a job that was just lost is not tried again; None while it is. One that gets a little further each time must not go on for ever."""
    if losses >= job.max_attempts:
        return _("{count} attempts in a row were lost before they had saved anything new.").format(count=losses)
    asked = select(func.max(Transition.id)).where(Transition.job_id == job.id, col(Transition.old).in_(ENDED))
    since = session.exec(asked).one() or 0
    lost = select(func.count()).where(Transition.job_id == job.id, Transition.new == JobStatus.lost, col(Transition.id) > since)
    if (count := session.exec(lost).one()) < MOST_LOSSES * job.max_attempts:
        return None
    return _("{count} attempts were lost since somebody last asked for it, although some had saved.").format(count=count)


def _has_saved(session: Session, attempt: Attempt) -> bool:
    newer = (Checkpoint.job_id == attempt.job_id, Checkpoint.attempt == attempt.number, Checkpoint.step > attempt.resumed_step, checkpoints.STORED)
    return session.exec(select(Checkpoint.id).where(*newer).limit(1)).first() is not None


def is_terminals(session: Session, job: Job) -> bool:
    """Whether a terminal started what is at work, and it is known as far as it was imported."""
    return job.status in ACTIVE and attempt_of(session, job).boot_id is None


# What people ask for


def request_stop(session: Session, job: Job, actor: str) -> None:
    """Queued: stopped at once. Active: its worker saves and stops it. Asking again changes nothing. Raises Conflict for a job that has ended."""
    session.refresh(job, with_for_update=True)
    if job.status is JobStatus.stopping:
        return
    _check_ours(session, job)
    if job.status in ENDED:
        raise Conflict(_("Job {id} has already {status}; there is nothing to stop.").format(id=job.id, status=job.status))
    at = {"stop_requested_at": db.now(session)}
    if job.status is JobStatus.queued:
        move_on(session, job, JobStatus.stopped, actor, "stop_requested", **at, detail=saved.words(session, job))
    else:
        move_on(session, job, JobStatus.stopping, actor, "stop_requested", **at)


def _check_ours(session: Session, job: Job) -> None:
    """Raises Conflict for a job whose trainer a terminal started: no worker hears what is asked of it."""
    if is_terminals(session, job):
        text = _("Job {id} was started in a terminal and imported. End it there, or with a file {file}; then import it again.")
        raise Conflict(text.format(id=job.id, file=Path(job.directory, STOP_FILE)))


def request_save(session: Session, job: Job, actor: str) -> None:
    """Ask for a checkpoint at the next step. Raises Conflict for a job that nobody works on."""
    session.refresh(job, with_for_update=True)
    if job.status not in ACTIVE:
        raise Conflict(_("Job {id} is {status}; there is nothing to save.").format(id=job.id, status=job.status))
    _check_ours(session, job)
    job.save_requested_at = db.now(session)
    session.add(job)


def retry(session: Session, job: Job, actor: str, reason: str = "retry") -> None:
    """Queue a failed or stopped job again, from its last good checkpoint if it has one. Raises Conflict in any other state."""
    session.refresh(job, with_for_update=True)
    if job.status not in (JobStatus.failed, JobStatus.stopped):
        raise Conflict(_("Job {id} is {status}; only a failed or stopped one can be tried again.").format(id=job.id, status=job.status))
    move_on(session, job, JobStatus.queued, actor, reason, losses=0, **_fresh(session, job))


def begin_again(session: Session, job: Job, actor: str, reason: str) -> None:
    """Queue a job that has ended from its very start: no attempt so far is continued. Raises Conflict in any other state."""
    session.refresh(job, with_for_update=True)
    if job.status not in ENDED:
        raise Conflict(_("Job {id} is {status}; only one that has ended can begin again.").format(id=job.id, status=job.status))
    values = _fresh(session, job) | {"resume_from": None, "begun_after": job.attempt, "losses": 0, "progress": {}}
    move_on(session, job, JobStatus.queued, actor, reason, **values)


def _fresh(session: Session, job: Job) -> dict[str, Any]:
    """Columns of a job that waits for its next attempt: where that one starts, and nothing of the one before."""
    checkpoint = checkpoints.last_good(session, job)
    gone = dict.fromkeys(("worker_id", "heartbeat_at", "stop_requested_at", "save_requested_at"))
    return {"resume_from": checkpoint and checkpoint.path, "queued_at": db.now(session), **gone}
