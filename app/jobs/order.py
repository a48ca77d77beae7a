"""The order of the queue: priority, then rank, which is a job's age until a person moves it. One order for workers, reasons and pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select, update

from app import db
from app.errors import Conflict
from app.i18n import _
from app.jobs.states import record
from app.models import Job, JobKind, JobStatus, Run

TAKEN = (col(Job.priority).desc(), col(Job.rank), col(Job.id))
"""In which workers take queued jobs."""
MOST_PRIORITY = 1000
"""Either way of 0."""


@dataclass(frozen=True)
class Before:
    """The place right before this job."""

    job_id: int


@dataclass(frozen=True)
class After:
    """The place right behind it."""

    job_id: int


Place = Before | After


def lock(session: Session) -> None:
    """Until this transaction ends, nobody else claims, moves or pauses: what a page says of the queue is true when it is said."""
    db.lock(session, "queue")


def waiting(session: Session, *, devices: int | None = None, priority: int | None = None) -> Sequence[Job]:
    """Queued jobs in their order."""
    query = select(Job).where(Job.status == JobStatus.queued).order_by(*TAKEN)
    if devices is not None:
        query = query.where(Job.devices == devices)
    if priority is not None:
        query = query.where(Job.priority == priority)
    return session.exec(query.execution_options(populate_existing=True)).all()


def reorder(session: Session, job: Job, actor: str, place: Place | None = None) -> None:
    """Move a queued job beside another one, whose priority it takes, or without a place to the top of its queue.

    Raises Conflict unless both wait for the same number of devices.
    """
    lock(session)
    session.refresh(job)
    queue = waiting(session, devices=job.devices)
    place = place or Before(next((each.id for each in queue), job.id))
    if place.job_id == job.id:  # it is where it is to be
        return _write(session, job, actor, job.priority, job.rank)
    anchor = _anchor(queue, place)
    _write(session, job, actor, anchor.priority, _rank_at(session, job, anchor, place))


def prioritise(session: Session, job: Job, actor: str, priority: int) -> None:
    """Give a queued job another priority, and the later stages of its run too; its place there is that of its age. Raises Conflict."""
    lock(session)
    session.refresh(job)
    _write(session, job, actor, priority, job.id)
    if job.kind is JobKind.train:
        run = session.get_one(Run, job.run_id)
        run.priority = priority
        session.add(run)


def _anchor(queue: Sequence[Job], place: Place) -> Job:
    if (found := next((each for each in queue if each.id == place.job_id), None)) is None:
        raise Conflict(_("Job {id} does not wait in the same queue any more; look at the queue again.").format(id=place.job_id))
    return found


def _rank_at(session: Session, job: Job, anchor: Job, place: Place) -> float:
    """Between the anchor and its neighbour on that side."""
    rank = _between(session, job, anchor, place)
    if rank is None:  # halved too often
        _spread(session, anchor.priority)
        session.refresh(anchor)
        rank = _between(session, job, anchor, place)
    assert rank is not None
    return rank


def _between(session: Session, job: Job, anchor: Job, place: Place) -> float | None:
    """None where no number is left. Ids begin ranks, so below the next id a job stays before all that are queued later."""
    ranks = [each.rank for each in waiting(session, priority=anchor.priority) if each.id not in (job.id, anchor.id)]
    if isinstance(place, Before):
        low, high = max((rank for rank in ranks if rank <= anchor.rank), default=anchor.rank - 2), anchor.rank
    else:
        newest = session.exec(select(func.max(Job.id))).one() or 0
        low, high = anchor.rank, min((rank for rank in ranks if rank >= anchor.rank), default=newest + 1)
    middle = (low + high) / 2
    return middle if low < middle < high else None


def _spread(session: Session, priority: int) -> None:
    """The same order in whole numbers: the ids of these very jobs."""
    queued = waiting(session, priority=priority)
    for job, rank in zip(queued, sorted(job.id for job in queued), strict=True):
        job.rank = rank
        session.add(job)
    session.flush()


def _write(session: Session, job: Job, actor: str, priority: int, rank: float) -> None:
    """Raises Conflict unless the job still waits as this session saw it."""
    same = (col(Job.id) == job.id, col(Job.status) == JobStatus.queued, col(Job.attempt) == job.attempt)
    reason = "moved_in_queue" if priority == job.priority else "priority_changed"
    if session.exec(update(Job).where(*same).values(priority=priority, rank=rank).execution_options(synchronize_session=False)).rowcount != 1:
        raise Conflict(_("Job {id} is {status}; only what waits can be moved.").format(id=job.id, status=job.status))
    session.refresh(job)
    record(session, job, JobStatus.queued, actor, reason)
