"""What the first page tells. Every function reads what one piece of it shows, in a fixed number of queries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, or_, tuple_
from sqlmodel import Session, col, func, select

from app import db
from app.gpus import Gpu
from app.i18n import _
from app.jobs import causes, pauses, progress, queue
from app.jobs.pauses import Pause
from app.models import ACTIVE, Evaluation, Export, Job, JobKind, JobStatus, MetricSeries, Run, StageChange, StageMark, StageRun
from app.runs.table import lists, rows
from app.runs.table.lists import Shown
from app.runs.table.rows import RunRow

LOSS = "train_loss"
QUEUE_ROWS = 8
RECENT = 10
ATTENTION_ROWS = 5
ATTENTION_LASTS = timedelta(days=7)
"""How long a failure that nobody resumed is held up to everybody."""


@dataclass(frozen=True)
class Work:
    """A job that has not ended: a stage of a run, or an evaluation."""

    entry: Mapping[str, Any]
    """As `queue.entries` has it."""
    title: str
    url: str
    row: RunRow | None
    """Of a stage, its run."""
    loss: float | None
    progress: str | None
    share: float


@dataclass(frozen=True)
class Card:
    """A GPU, and the worker that owns it."""

    worker: Mapping[str, Any]
    """As `workers` has it."""
    gpu: Gpu


@dataclass(frozen=True)
class Queue:
    """The head of the queue, in the order in which workers take it."""

    work: Sequence[Work]
    length: int
    pauses: Sequence[Pause]


@dataclass(frozen=True)
class Trouble:
    """Something that has failed, or that nobody is heard to work on."""

    job: Job
    shown: Shown
    title: str
    url: str
    why: str
    can_resume: bool


@dataclass(frozen=True)
class Gate:
    """A stage that a person can start."""

    run: Run
    stage: StageRun
    since: datetime


def workers(session: Session) -> list[dict[str, Any]]:
    """Those that have not said goodbye, each with what it is `at`."""
    living = [worker for worker in queue.workers(session) if worker["stopped_at"] is None]
    busy = [each for each in queue.entries(session) if each["status"] in ACTIVE]
    titles, stages = _titles(session, busy), {each["id"]: each["stage"] for each in busy}
    at = {id_: {"title": title, "url": url, "stage": stages[id_]} for id_, (title, url) in titles.items()}
    return [worker | {"at": at.get(worker["job_id"])} for worker in living]


def gpus(workers: Iterable[Mapping[str, Any]]) -> list[Card]:
    """One for each device of these that a driver knows, if they live: of the others nobody has looked lately."""
    return [Card(worker, Gpu.model_validate(gpu)) for worker in workers if worker["is_alive"] for gpu in worker["gpus"]]


def running(session: Session) -> list[Work]:
    return _work(session, [each for each in queue.entries(session) if each["status"] in ACTIVE])


def queued(session: Session, most: int) -> Queue:
    waiting = [each for each in queue.entries(session) if each["status"] == JobStatus.queued]
    return Queue(_work(session, waiting[:most]), len(waiting), list(pauses.paused(session).values()))


def recent(session: Session) -> list[RunRow]:
    """Runs that have ended, the latest first."""
    ids = lists.ended(session, RECENT)
    found = {run.id: run for run in session.exec(select(Run).where(col(Run.id).in_(ids)))}
    return rows.of(session, [found[id_] for id_ in ids])


def has_runs(session: Session) -> bool:
    return session.exec(select(Run.id).limit(1)).first() is not None


def attention(session: Session) -> tuple[list[Trouble], int]:
    """What has failed in the last days and was not taken up again, and what is silent, the latest first. And how many there are in all."""
    now = db.now(session)
    failed = (lists.is_shown(Shown.failed, now), col(Job.finished_at) >= now - ATTENTION_LASTS)
    wrong = or_(and_(*failed), lists.is_shown(Shown.lost, now))
    queries = (lists.standing(wrong), select(Job).where(col(Job.kind).in_((JobKind.evaluate, JobKind.export)), wrong))
    jobs = [job for query in queries for job in session.exec(query)]
    jobs.sort(key=lambda job: job.finished_at or job.heartbeat_at or now, reverse=True)
    titles = _titles(session, [job.model_dump() for job in jobs[:ATTENTION_ROWS]])
    return [_trouble(job, *titles[job.id]) for job in jobs[:ATTENTION_ROWS]], len(jobs)


def gates(session: Session) -> list[Gate]:
    """Closed gates at which runs stand, the newest run first."""
    found = lists.gated(session)
    closed = select(StageChange.stage_id, func.max(StageChange.at)).where(StageChange.new == StageMark.gated)
    since = dict(
        session.exec(closed.where(col(StageChange.stage_id).in_([stage.id for stage, _run in found])).group_by(col(StageChange.stage_id))).all()
    )
    return [Gate(run, stage, since[stage.id]) for stage, run in found]


def _trouble(job: Job, title: str, url: str) -> Trouble:
    if job.status is JobStatus.failed:
        return Trouble(job, Shown.failed, title, url, causes.in_a_line(job), can_resume=job.stage_id is not None)
    return Trouble(job, Shown.lost, title, url, _("Nobody has been heard to work on it."), can_resume=False)


def _work(session: Session, entries: Sequence[Mapping[str, Any]]) -> list[Work]:
    titles = _titles(session, entries)
    runs = session.exec(select(Run).where(col(Run.id).in_([each["run_id"] for each in entries if each["stage"]]))).all()
    of_run = {row.run.id: row for row in rows.of(session, runs)}
    losses, now = _losses(session, entries), db.now(session)
    return [
        Work(
            each, *titles[each["id"]], of_run.get(each["run_id"]) if each["stage"] else None, losses.get(each["id"]),
            rows.in_words(each["progress"], each["is_lost"], now), progress.share(each["progress"]),
        )
        for each in entries
    ]  # fmt: skip


def _titles(session: Session, jobs: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, str]]:
    """Name and address of what each job works for, by the job's id."""
    evaluations = dict(
        session.exec(select(Evaluation.id, Evaluation.name).where(col(Evaluation.id).in_([job["evaluation_id"] for job in jobs]))).all()
    )
    exported = session.exec(select(Export).where(col(Export.id).in_([job["export_id"] for job in jobs]))).all()
    places = {each.id: f"/checkpoints/{each.checkpoint_id}" for each in exported if each.checkpoint_id}
    runs = dict(session.exec(select(Run.id, Run.name).where(col(Run.id).in_([job["run_id"] for job in jobs]))).all())
    return {job["id"]: _title(job, runs, evaluations, places) for job in jobs}


def _title(job: Mapping[str, Any], runs: Mapping[int, str], evaluations: Mapping[int, str], exports: Mapping[int, str]) -> tuple[str, str]:
    if job["export_id"] in exports:
        return runs[job["run_id"]], exports[job["export_id"]]
    if (evaluation := job["evaluation_id"]) is not None:
        return evaluations[evaluation], f"/evals/{evaluation}"
    return runs[job["run_id"]], f"/runs/{job['run_id']}"


def _losses(session: Session, entries: Sequence[Mapping[str, Any]]) -> dict[int, float | None]:
    """The newest training loss of each job's newest attempt."""
    attempts = tuple_(col(MetricSeries.job_id), col(MetricSeries.attempt)).in_([(each["id"], each["attempt"]) for each in entries])
    query = select(MetricSeries.job_id, MetricSeries.last_value).where(attempts, MetricSeries.name == LOSS)
    return dict(session.exec(query).all())
