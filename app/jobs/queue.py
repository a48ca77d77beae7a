"""The house at a glance: jobs that have not ended, and workers with what they are at. Reads only."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, func, select

from app import db, doorbell
from app.jobs import endings, order, pauses, waiting
from app.jobs.states import PATIENCE, is_lost
from app.models import ACTIVE, ENDED, Job, JobStatus, StageChange, StageRun, Transition, Worker


def entries(session: Session) -> Sequence[dict[str, Any]]:
    """Jobs at work, then queued ones in the order in which workers take them; each with its stage and why it waits."""
    first_at_work = col(Job.status) == JobStatus.queued
    query = select(Job, StageRun.stage).outerjoin(StageRun, col(Job.stage_id) == StageRun.id)
    found = session.exec(query.where(col(Job.status).not_in(ENDED)).order_by(first_at_work, *order.TAKEN)).all()
    jobs = [job for job, _stage in found]
    reasons, ends, now = waiting.reasons(session, jobs), endings.told(session, jobs), db.now(session)
    return [
        job.model_dump()
        | {"stage": stage, "waiting_because": reasons.get(job.id), "ended_because": ends.get(job.id), "is_lost": is_lost(job, now)}
        for job, stage in found
    ]  # fmt: skip


def length(session: Session) -> int:
    """How many jobs wait."""
    return session.exec(select(func.count()).select_from(Job).where(Job.status == JobStatus.queued)).one()


def names(session: Session) -> Sequence[str]:
    """Queues in which something waits or that a living worker serves, and paused ones."""
    living = (col(Worker.stopped_at).is_(None), col(Worker.heartbeat_at) >= db.now(session) - PATIENCE)
    devices = set(session.exec(select(Job.devices).where(Job.status == JobStatus.queued).distinct()))
    devices |= {len(worker.devices) for worker in session.exec(select(Worker).where(*living))}
    return list(dict.fromkeys([*map(doorbell.queue, sorted(devices)), *sorted(set(pauses.paused(session)) - {pauses.EVERYTHING})]))


def workers(session: Session) -> Sequence[dict[str, Any]]:
    """All workers there are and were, by name, each with the job it is at."""
    silent_since = db.now(session) - PATIENCE
    busy = dict(session.exec(select(Job.worker_id, Job.id).where(col(Job.status).in_(ACTIVE))).all())
    return [
        worker.model_dump() | {"job_id": busy.get(worker.id), "is_alive": worker.stopped_at is None and worker.heartbeat_at >= silent_since}
        for worker in session.exec(select(Worker).order_by(Worker.name))
    ]


def timeline(session: Session, run_id: int) -> Sequence[dict[str, Any]]:
    """Every change of status of a run's stages, and what else befell them, oldest first."""
    query = select(Transition, StageRun.stage).join(Job, col(Job.id) == Transition.job_id).join(StageRun, col(StageRun.id) == Job.stage_id)
    found = session.exec(query.where(StageRun.run_id == run_id).order_by(col(Transition.id)))
    moves = [transition.model_dump() | {"stage": stage} for transition, stage in found]
    befell = select(StageChange, StageRun.stage).join(StageRun, col(StageRun.id) == StageChange.stage_id).where(StageRun.run_id == run_id)
    no_job = dict.fromkeys(("job_id", "attempt", "old"))
    changes = [change.model_dump() | no_job | {"stage": stage} for change, stage in session.exec(befell.order_by(col(StageChange.id)))]
    return sorted(moves + changes, key=lambda each: each["at"])
