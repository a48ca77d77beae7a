"""Why queued jobs wait: which living workers could take them, what those are at, and who is before them in the queue."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from sqlmodel import Session, col, select

from app import db
from app.i18n import _, ngettext
from app.jobs.states import PATIENCE
from app.models import ACTIVE, Job, JobStatus, Worker


def why_waiting(session: Session, job: Job) -> str:
    """One clause that a page puts after "waiting: "."""
    return reasons(session, [job])[job.id]


def reasons(session: Session, jobs: Sequence[Job]) -> dict[int, str]:
    """For every queued job among these, by its id. Four queries for a page of any length."""
    workers, busy, queue = _workers(session), _busy(session), _queue(session)
    waiting = [job for job in jobs if job.status is JobStatus.queued]
    return {job.id: _reason(job, workers[job.devices], busy, queue[job.id]) for job in waiting}


def _workers(session: Session) -> dict[int, list[Worker]]:
    """Living workers by the number of devices they own."""
    alive = (col(Worker.stopped_at).is_(None), col(Worker.heartbeat_at) >= db.now(session) - PATIENCE)
    found: dict[int, list[Worker]] = defaultdict(list)
    for worker in session.exec(select(Worker).where(*alive).order_by(Worker.name)):
        found[len(worker.devices)].append(worker)
    return found


def _busy(session: Session) -> dict[int | None, Job]:
    """What workers are at, by worker id."""
    return {job.worker_id: job for job in session.exec(select(Job).where(col(Job.status).in_(ACTIVE)))}


def _queue(session: Session) -> dict[int, int]:
    """How many jobs each queued one has before it, by its id: workers take the highest priority first, then the oldest."""
    taken: Counter[int] = Counter()
    ahead = {}
    order = (col(Job.priority).desc(), col(Job.id))
    for job_id, devices in session.exec(select(Job.id, Job.devices).where(Job.status == JobStatus.queued).order_by(*order)):
        ahead[job_id] = taken[devices]
        taken[devices] += 1
    return ahead


def _reason(job: Job, workers: Sequence[Worker], busy: dict[int | None, Job], ahead: int) -> str:
    if not workers:
        text = ngettext("needs {n} device; no worker serves x{n}", "needs {n} devices; no worker serves x{n}", job.devices)
        return text.format(n=job.devices)
    if ahead:
        return ngettext("behind {count} job", "behind {count} jobs", ahead).format(count=ahead)
    if any(worker.id not in busy for worker in workers):
        return _("a worker is free and about to take it")
    if len(workers) > 1:
        return _("all {count} workers of x{n} are busy").format(count=len(workers), n=job.devices)
    return _work(workers[0], busy[workers[0].id])


def _work(worker: Worker, job: Job) -> str:
    if job.export_id is not None:
        return _("worker {name} is busy with an export of run {id}").format(name=worker.name, id=job.run_id)
    if job.run_id is not None and job.evaluation_id is None:
        return _("worker {name} is busy with run {id}").format(name=worker.name, id=job.run_id)
    return _("worker {name} is busy with evaluation {id}").format(name=worker.name, id=job.evaluation_id)
