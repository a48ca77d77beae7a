"""Why queued jobs wait: whether somebody paused their queue, which living workers could take them, what those are at, and who is before them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from app import db, doorbell
from app.formats import duration
from app.i18n import _, ngettext
from app.jobs import order, pauses, progress
from app.jobs.pauses import Pauses
from app.jobs.states import PATIENCE
from app.models import ACTIVE, Job, JobStatus, Worker

SOON = 60.0
"""Seconds below which nobody wants to know the number."""


def why_waiting(session: Session, job: Job) -> str:
    """One clause that a page puts after "waiting: "."""
    return reasons(session, [job]).get(job.id, _("a worker has just taken it"))


def reasons(session: Session, jobs: Sequence[Job]) -> dict[int, str]:
    """For every queued job among these that was not taken since it was read, by its id. Five queries for a page of any length."""
    house, ahead = _House.of(session), _ahead(session)
    return {job.id: house.why(job.devices, ahead[job.id]) for job in jobs if job.status is JobStatus.queued and job.id in ahead}


def _ahead(session: Session) -> dict[int, int]:
    """How many jobs for as many devices each queued one has before it, by its id."""
    taken: Counter[int] = Counter()
    ahead = {}
    for job_id, devices in session.exec(select(Job.id, Job.devices).where(Job.status == JobStatus.queued).order_by(*order.TAKEN)):
        ahead[job_id] = taken[devices]
        taken[devices] += 1
    return ahead


@dataclass(frozen=True)
class _House:
    """What jobs may have to wait for."""

    workers: Mapping[int, Sequence[Worker]]
    """Living ones, by the number of devices they own."""
    busy: Mapping[int | None, Job]
    """What they are at, by their ids."""
    pauses: Pauses
    now: datetime

    @classmethod
    def of(cls, session: Session) -> "_House":
        now = db.now(session)
        alive = (col(Worker.stopped_at).is_(None), col(Worker.heartbeat_at) >= now - PATIENCE)
        workers: dict[int, list[Worker]] = defaultdict(list)
        for worker in session.exec(select(Worker).where(*alive).order_by(Worker.name)):
            workers[len(worker.devices)].append(worker)
        busy = {job.worker_id: job for job in session.exec(select(Job).where(col(Job.status).in_(ACTIVE)))}
        return cls(workers, busy, pauses.paused(session), now)

    def why(self, devices: int, ahead: int) -> str:
        if pause := pauses.applies(self.pauses, devices):
            return str(pause)
        if not (workers := self.workers.get(devices)):
            return _needs(devices) + _("no worker serves {queue}").format(queue=doorbell.queue(devices)) + self._there_are()
        if ahead:
            return ngettext("behind {count} job", "behind {count} jobs", ahead).format(count=ahead)
        return (_needs(devices) if devices > 1 else "") + self._at(workers, doorbell.queue(devices))

    def _there_are(self) -> str:
        """The queues that have a worker."""
        if not (queues := [doorbell.queue(devices) for devices in sorted(self.workers)]):
            return ""
        return ngettext(", there is {queues}", ", there are {queues}", len(queues)).format(queues=_listed(queues))

    def _at(self, workers: Sequence[Worker], queue: str) -> str:
        """What those are at that could take the next job."""
        free = [worker for worker in workers if worker.id not in self.busy]
        if any(worker.held_back is None for worker in free):
            return _("a worker is free and about to take it")
        if len(workers) == 1:
            return self._the_only(workers[0], queue)
        if free:
            text = _("worker {name} is free but takes nothing: {why}")
            return text.format(name=free[0].name, why=free[0].held_back)
        text = _("all {count} workers of {queue} are busy").format(count=len(workers), queue=queue)
        return text + self._first_free(workers)

    def _the_only(self, worker: Worker, queue: str) -> str:
        if job := self.busy.get(worker.id):
            return _("the only {queue} worker runs {work}").format(queue=queue, work=_work(job)) + _left(progress.left(job.progress, self.now))
        return _("the only {queue} worker takes nothing: {why}").format(queue=queue, why=worker.held_back)

    def _first_free(self, workers: Sequence[Worker]) -> str:
        """Nothing while one of them cannot say how long it will take: it may be the first."""
        foreseen = [progress.left(self.busy[worker.id].progress, self.now) for worker in workers]
        known = [seconds for seconds in foreseen if seconds is not None]
        if len(known) < len(foreseen):
            return ""
        return _(", the first of them has {time}").format(time=_about(min(known)))


def _needs(devices: int) -> str:
    return ngettext("needs {n} device; ", "needs {n} devices; ", devices).format(n=devices)


def _work(job: Job) -> str:
    if job.export_id is not None:
        return _("an export of run {id}").format(id=job.run_id)
    if job.run_id is not None and job.evaluation_id is None:
        return _("run {id}").format(id=job.run_id)
    return _("evaluation {id}").format(id=job.evaluation_id)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {_about(seconds)}"


def _about(seconds: float) -> str:
    return _("less than a minute left") if seconds < SOON else _("about {time} left").format(time=duration(seconds))


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return _("{most} and {last}").format(most=", ".join(most), last=last) if most else last
