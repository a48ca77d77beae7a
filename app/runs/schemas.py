"""What the API says of runs and takes from those who launch them."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app import db
from app.checkpoints import retention
from app.deps import RequestKey, Row
from app.jobs import progress, states, waiting
from app.logs import service as logs
from app.metrics import service as metrics
from app.models import JobStatus, MetricSeries, Run, StageMark
from app.runs.service import RunState, StageState
from panollava.events import jsonable
from panollava.stages import Stage


class RunRequest(BaseModel):
    """A run to be made: `config` over the preset, that over the server's panollava.toml, that over the schema's defaults."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = Field({}, description="Settings of the run; GET /schema/run says which there are.")
    preset: str | None = Field(None, description="Name of a preset, see GET /presets.")
    priority: int = Field(0, ge=-1000, le=1000, description="The higher, the sooner; runs of one priority go by age.")
    request_key: RequestKey = None


class StageOut(BaseModel):
    """One stage of a run, as its newest job has it."""

    stage: Stage
    status: str = Field(description="waiting (for the stage before it), gated (see waiting_because), or the status of its job.")
    is_lost: bool = Field(description="Somebody should be at it, but nothing has been heard for 30 s.")
    waiting_because: str | None = Field(description="Why a queued stage is not at work yet, or what its gate asks for.")
    stale_at: datetime | None = Field(None, description="When what it was trained from was begun again; null while it is up to date.")
    stale_because: str | None = None
    job_id: int | None
    attempt: int
    progress: dict[str, Any] = Field(description="What the trainer last said: done, total, unit, eta_seconds, device_memory, heard_at.")
    step: int | None = Field(None, description="The last optimizer step that it told of; null while it reads its images.")
    said_at: datetime | None = Field(None, description="When it said so, by the database's clock: when a worker stored it.")
    step_age_seconds: float | None = Field(None, description="How long ago that was.")
    device_memory: int | None = Field(None, description="Bytes that it holds on its device; null on a CPU.")
    reason: str | None = Field(description="Short cause of the end.")
    detail: str | None = Field(description="The end in words.")
    init_checkpoint: str | None = Field(description="Checkpoint whose weights it starts from.")
    best_checkpoint_id: int | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None


class RunOut(Row):
    """A run in a list."""

    id: int
    name: str
    status: str = Field(description="Status of the first stage that has not succeeded; succeeded when all have.")
    is_lost: bool
    priority: int
    request_key: str | None
    note: str
    archived_at: datetime | None = Field(description="Since when lists leave it out.")
    parent_id: int | None = Field(description="The run whose checkpoint it started from, if it did; that may be deleted.")
    created_at: datetime
    created_by: str
    imported_from: str | None = Field(None, description="Where a terminal trained it: what the directories of its stages share.")
    stages: list[StageOut]


class RunDetail(RunOut):
    """A run with what it was asked for."""

    directory: str
    config: dict[str, Any]


class TransitionOut(Row):
    """One change of a status. A stage that was gated or became stale has no job that changed."""

    job_id: int | None
    stage: Stage | None
    attempt: int | None
    old: JobStatus | None
    new: JobStatus | StageMark
    at: datetime
    actor: str
    reason: str


class SeriesOut(BaseModel):
    """One named scalar of one attempt, as it stands."""

    name: str
    stage: Stage | None
    job_id: int
    attempt: int
    points: int
    last_step: int
    last_value: float | str = Field(description='NaN is "NaN".')

    @classmethod
    def of(cls, series: MetricSeries, stage: Stage | None) -> Self:
        last = jsonable(math.nan if series.last_value is None else series.last_value)
        return cls(**series.model_dump(include={"name", "job_id", "attempt", "last_step"}), stage=stage, points=series.count, last_value=last)


class LineOut(BaseModel):
    """One line of a chart: what a series of one attempt comes to in buckets."""

    name: str
    stage: Stage | None
    job_id: int
    attempt: int
    points: int = Field(description="Points of the whole series, however many of them the buckets stand for.")
    steps_per_epoch: float | None = Field(description="Step over this is the epoch; null until the trainer has told of an epoch.")
    ema_count: int | None = Field(
        description="With `smooth`: n, the finite points in the last `ema`. It goes on with s = ema (1 - smooth^n), as `smooth` says."
    )
    buckets: dict[str, list[int | float | str]] = Field(
        description='Columns: first and last step and time, min, max, last, count, and ema if asked for. NaN is "NaN".'
    )

    @classmethod
    def of(cls, line: metrics.Line) -> Self:
        facts = {name: getattr(line, name) for name in cls.model_fields if name != "buckets"}
        return cls(**facts, buckets=line.columns())


class LogOut(BaseModel):
    """A piece of an attempt's output."""

    stage: Stage
    job_id: int
    attempt: int
    offset: int
    next: int = Field(description="Where the rest begins.")
    end: int = Field(description="How far the output reaches by now.")
    line: int = Field(description="Number of the line in which `offset` lies; the first is 1.")
    lines: int = Field(description="Line ends in the whole output.")
    text: str


class FoundOut(BaseModel):
    """Lines that were searched for, each with the byte at which it begins, its number, and what a terminal shows of it."""

    stage: Stage
    attempt: int
    next: int = Field(description="Where to search on. At the end that is the line that is not ended yet, which may be among those found.")
    lines: list[logs.Found]


class RetentionRequest(retention.Rule):
    """A rule to keep, and whether to remove at once what it does not keep."""

    apply: bool = Field(True, description="Remove now; else only the rule is kept.")
    checkpoint_ids: list[int] | None = Field(None, description="Remove none but these, such as those of a preview.")


class FileOut(BaseModel):
    """A checkpoint file under all its names."""

    checkpoint_ids: list[int]
    paths: list[str]
    step: int
    size: int
    kept_because: list[str] = Field(description="Empty: it may go.")

    @classmethod
    def of(cls, file: retention.Kept) -> Self:
        ids, paths = [name.id for name in file.names], [name.path for name in file.names]
        return cls(checkpoint_ids=ids, paths=paths, step=file.row.step, size=file.row.size, kept_because=list(file.reasons))


class RetentionOut(BaseModel):
    """What a rule comes to: what goes, or has gone, and what stays."""

    rule: retention.Rule
    removed: bool = Field(description="Whether it has gone.")
    bytes_freed: int
    bytes_leaving: int = Field(description="Of files that the run gave up, now or before, and that the object store still has.")
    leaving_because: str | None = Field(description="What the store said when they were last to be removed; tried again every ten seconds.")
    go: list[FileOut]
    stay: list[FileOut]

    @classmethod
    def of(cls, plan: retention.Plan, *, removed: bool = False) -> Self:
        go, stay = map(FileOut.of, plan.go), map(FileOut.of, plan.stay)
        leaving = {"bytes_leaving": plan.leaving.size, "leaving_because": plan.leaving.problem}
        return cls(rule=plan.rule, removed=removed, bytes_freed=plan.freed, go=list(go), stay=list(stay), **leaving)


def describe(session: Session, runs: Sequence[RunState]) -> list[dict[str, Any]]:
    """Fields of RunDetail for runs and their stages; five queries however many there are."""
    jobs = [stage.job for run in runs for stage in run.stages if stage.job]
    reasons, now = waiting.reasons(session, jobs), db.now(session)
    return [_run(each.run, each.status, [_stage(stage, reasons, now) for stage in each.stages]) for each in runs]


def _run(run: Run, status: str, stages: Sequence[StageOut]) -> dict[str, Any]:
    return run.model_dump() | {"status": status, "is_lost": any(each.is_lost for each in stages), "stages": stages}


def _stage(state: StageState, reasons: dict[int, str], now: datetime) -> StageOut:
    job = state.job
    work: dict[str, Any] = job.model_dump(include=_OF_JOB) if job else dict.fromkeys(_OF_JOB) | {"attempt": 0, "progress": {}}
    return StageOut(
        stage=state.stage,
        status=state.status,
        is_lost=job is not None and states.is_lost(job, now),
        waiting_because=state.row.gated_because or (reasons.get(job.id) if job else None),
        stale_at=state.row.stale_at,
        stale_because=state.row.stale_because,
        job_id=job.id if job else None,
        init_checkpoint=state.row.init_checkpoint,
        best_checkpoint_id=state.row.best_checkpoint_id,
        **work,
        **_said(work["progress"], now),
    )


def _said(said: progress.Said, now: datetime) -> dict[str, Any]:
    at, step = progress.heard_at(said), progress.step(said)
    age = None if at is None or step is None else max(0.0, (now - at).total_seconds())
    return {"step": step, "said_at": at, "step_age_seconds": age, "device_memory": said.get("device_memory")}


_OF_JOB = {"attempt", "progress", "reason", "detail", "queued_at", "started_at", "finished_at", "heartbeat_at"}
