"""The house in figures, read from the rows at the moment somebody asks. No process keeps a count of its own of what the rows know."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlmodel import Session, and_, case, col, func, select

from app import db, doorbell
from app.jobs import pauses, queue
from app.jobs.states import PATIENCE
from app.models import ACTIVE, Job, JobStatus, Worker


class House(Collector):
    """Queues, jobs and workers. Lives as long as its session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now = db.now(session)

    def collect(self) -> Iterator[Metric]:
        yield from self._queues()
        yield self._jobs()
        yield from self._workers()

    def _queues(self) -> Iterator[Metric]:
        query = select(Job.devices, func.count(), func.min(Job.queued_at)).where(Job.status == JobStatus.queued).group_by(col(Job.devices))
        waiting = {doorbell.queue(devices): (count, self._age(oldest)) for devices, count, oldest in self._session.exec(query)}
        names, paused = queue.names(self._session), pauses.paused(self._session)
        counts, ages = ({name: waiting.get(name, (0, 0.0))[place] for name in names} for place in (0, 1))
        yield _gauge("panollava_queue_jobs", "Jobs that wait, by queue.", ["queue"], counts.items())
        yield _gauge("panollava_queue_oldest_seconds", "How long the oldest job of a queue has waited.", ["queue"], ages.items())
        held = ((name, float(name in paused or pauses.EVERYTHING in paused)) for name in names)
        yield _gauge("panollava_queue_paused", "1 while nothing is taken from a queue.", ["queue"], held)

    def _jobs(self) -> Metric:
        silent = and_(col(Job.status).in_(ACTIVE), col(Job.heartbeat_at) < self._now - PATIENCE)
        shown = case((silent, JobStatus.lost.value), else_=func.coalesce(Job.status, ""))
        family = GaugeMetricFamily("panollava_jobs", "Jobs by kind and state; at work and silent for 30 s is lost.", labels=["kind", "state"])
        for kind, state, count in self._session.exec(select(Job.kind, shown, func.count()).group_by(col(Job.kind), shown)):
            family.add_metric([kind, state], count)
        return family

    def _workers(self) -> Iterator[Metric]:
        workers = self._session.exec(select(Worker).where(col(Worker.stopped_at).is_(None)).order_by(Worker.name)).all()
        ages = ((worker.name, self._age(worker.heartbeat_at)) for worker in workers)
        yield _gauge("panollava_worker_heartbeat_age_seconds", "Since when a worker has not been heard.", ["worker"], ages)
        text = "Bytes that a worker's trainer has written and the database does not hold."
        yield _gauge("panollava_ingest_unread_bytes", text, ["worker"], ((worker.name, worker.unread) for worker in workers))
        points = CounterMetricFamily("panollava_metric_points", "Metric points that a worker has brought in.", labels=["worker"])
        for worker in workers:
            points.add_metric([worker.name], worker.points)
        yield points

    def _age(self, at: datetime) -> float:
        return max(0.0, (self._now - at).total_seconds())


def _gauge(name: str, text: str, labels: list[str], values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric([label], value)
    return family


def exposition(session: Session, process: CollectorRegistry) -> bytes:
    """All figures in Prometheus' text format: the house's, and those of this server process."""
    house = CollectorRegistry()
    house.register(House(session))
    return generate_latest(house) + generate_latest(process)
