"""All tables. A job is the unit of work and the only thing with a status of its own; runs and stages derive theirs.

Times are UTC and come from the database's clock. JSON columns hold plain data that was validated before it got here; a NaN in
them is the string "NaN". Ids are never used twice, because directories and streams are named by them.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Enum, ForeignKey, Index, Integer, LargeBinary, UniqueConstraint, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from panollava.stages import Stage

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
NEVER_AGAIN = {"sqlite_autoincrement": True}
"""SQLite gives the id of the newest row again once it is deleted, unless told not to."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database; SQLite would otherwise hand back a naive one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JobKind(StrEnum):
    train = "train"
    evaluate = "evaluate"
    generate = "generate"
    export = "export"


class JobStatus(StrEnum):
    queued = "queued"
    starting = "starting"
    running = "running"
    stopping = "stopping"
    succeeded = "succeeded"
    failed = "failed"
    stopped = "stopped"
    lost = "lost"


ACTIVE = (JobStatus.starting, JobStatus.running, JobStatus.stopping)
"""A worker is at it, or was when it was last heard of."""
ENDED = (JobStatus.succeeded, JobStatus.failed, JobStatus.stopped)


def _id(**more: Any) -> Any:
    """Annotated `int`, not `int | None`: whoever holds a row that was flushed has its id."""
    return Field(default=None, primary_key=True, **more)


def _json(**more: Any) -> Any:
    return Field(sa_type=JSON, **more)


def _time(**more: Any) -> Any:
    return Field(sa_type=UtcDateTime, **more)


def _choice(choices: type[StrEnum], **more: Any) -> Any:
    """Plain text in the database, so that a new choice needs no migration."""
    return Field(sa_type=Enum(choices, native_enum=False, length=16), **more)


def _checkpoint(**more: Any) -> Any:
    """A key added after its table, because checkpoints point at stages and, through their job, at evaluations."""
    return Field(default=None, sa_column_args=(ForeignKey("checkpoint.id", ondelete="SET NULL", use_alter=True),), **more)


class StageMark(StrEnum):
    """What a stage can be besides what its job is."""

    gated = "gated"
    """Its condition does not hold; a person can open the gate."""
    stale = "stale"
    """What it was trained from has been trained again since."""


class Run(SQLModel, table=True):
    """One request for a chain of stages, with the config it was asked for, never edited afterwards."""

    __table_args__ = NEVER_AGAIN

    id: int = _id()
    name: str = Field(index=True)
    config: dict[str, Any] = _json()
    directory: str = Field(default="", description="The stages' directories lie below it.")
    priority: int = 0
    request_key: str | None = Field(default=None, unique=True, description="The client's key; a second POST with it gives the same run.")
    request_hash: str = Field(description="Digest of what was asked for, to tell a repeated request from another one under the same key.")
    note: str = Field(default="", description="What people want to remember of it.")
    archived_at: datetime | None = _time(default=None, description="Since when lists leave it out.")
    parent_id: int | None = Field(
        default=None, index=True, description="The run whose checkpoint it started from. No foreign key: it may be deleted."
    )
    origin: dict[str, Any] | None = _json(default=None, nullable=True, description="That checkpoint, by `lineage.origin`; kept when it is deleted.")
    imported_from: str | None = Field(
        default=None, index=True, unique=True, description="Where a terminal trained it: what the directories of its stages share."
    )
    retention: dict[str, Any] | None = _json(default=None, nullable=True)
    created_at: datetime = _time(index=True)
    created_by: str


class StageRun(SQLModel, table=True):
    """One stage of one run. Its status is `gated` while its gate is closed, else its newest job's, or `waiting` while it has none."""

    __tablename__ = "stage"
    __table_args__ = (UniqueConstraint("run_id", "stage"), Index(None, "run_id", "position"))

    id: int = _id()
    run_id: int = Field(foreign_key="run.id", ondelete="CASCADE")
    stage: Stage = _choice(Stage)
    position: int
    init_checkpoint: str | None = Field(default=None, description="Path or address of the checkpoint whose weights it started from.")
    best_checkpoint_id: int | None = _checkpoint()
    overrides: dict[str, Any] | None = _json(
        default=None, nullable=True, description="Settings by their names on the command line, in the place of the run's since it ran out of memory."
    )
    gated_because: str | None = Field(default=None, description="Why its gate is closed; None while it is not.")
    stale_at: datetime | None = _time(default=None, description="When what it was trained from was begun again.")
    stale_because: str | None = None


class Job(SQLModel, table=True):
    """A piece of work. `attempt` counts claims and fences every write: who holds an older number writes nothing."""

    __table_args__ = (Index(None, "status", "devices", "priority", "rank"), NEVER_AGAIN)

    id: int = _id()
    kind: JobKind = _choice(JobKind)
    run_id: int | None = Field(default=None, foreign_key="run.id", index=True, ondelete="CASCADE")
    stage_id: int | None = Field(default=None, foreign_key="stage.id", index=True, ondelete="CASCADE")
    evaluation_id: int | None = Field(default=None, foreign_key="evaluation.id", index=True, ondelete="CASCADE")
    export_id: int | None = Field(default=None, foreign_key="export.id", index=True, ondelete="CASCADE")
    status: JobStatus = _choice(JobStatus, default=JobStatus.queued)
    attempt: int = 0
    max_attempts: int = 3
    losses: int = Field(default=0, description="Attempts in a row that were lost before they had saved anything new.")
    begun_after: int = Field(default=0, description="The last attempt before the stage was begun again: later ones do not go on from it.")
    devices: int = 1
    priority: int = 0
    rank: float = Field(default=0.0, sa_column_kwargs={"server_default": "0"}, description="Place among jobs of its priority: its id, until moved.")
    directory: str = Field(description="Attempt N of the job writes below <directory>/attempt-N.")
    resume_from: str | None = Field(default=None, description="Checkpoint the next attempt continues from.")
    worker_id: int | None = Field(default=None, foreign_key="worker.id", ondelete="SET NULL")
    queued_at: datetime = _time()
    started_at: datetime | None = _time(default=None)
    finished_at: datetime | None = _time(default=None)
    heartbeat_at: datetime | None = _time(default=None)
    stop_requested_at: datetime | None = _time(default=None)
    save_requested_at: datetime | None = _time(default=None)
    reason: str | None = Field(default=None, description="Short cause of the last ending, such as bad_input or worker_lost.")
    detail: str | None = None
    progress: dict[str, Any] = _json(default_factory=dict)


class Attempt(SQLModel, table=True):
    """One claim of a job: who took it, the trainer process, and how much of its files the database holds."""

    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: int = _id()
    job_id: int = Field(foreign_key="job.id", index=True, ondelete="CASCADE")
    number: int
    worker_id: int | None = Field(default=None, foreign_key="worker.id", ondelete="SET NULL")
    directory: str
    pid: int | None = None
    pid_started: float | None = Field(default=None, description="When the kernel started that pid, so that a reused pid is not mistaken for it.")
    boot_id: str | None = Field(default=None, description="The boot of the machine on which it was claimed; None of one that a terminal began.")
    devices: list[str] | None = _json(default=None, nullable=True, description="Those of its worker; None before they were written down.")
    resumed_step: int = Field(default=0, description="Optimizer step it continued from; 0 when it began at the start.")
    steps_per_epoch: float | None = Field(default=None, description="A step over this is its epoch. None until the trainer has told of one.")
    event_offset: int = Field(default=0, sa_type=BigInteger, description="Bytes of events.jsonl in the database.")
    log_offset: int = Field(default=0, sa_type=BigInteger, description="Bytes of output.log in the database.")
    exit_code: int | None = None
    suggestion: dict[str, Any] | None = _json(
        default=None, nullable=True, description="Settings by their names on the command line, with which a stage that ran out of memory may do."
    )
    started_at: datetime = _time()
    ended_at: datetime | None = _time(default=None)


class Transition(SQLModel, table=True):
    """One change of a job's status: the history behind every timeline."""

    id: int = _id()
    job_id: int = Field(foreign_key="job.id", index=True, ondelete="CASCADE")
    attempt: int
    old: JobStatus | None = _choice(JobStatus, default=None, nullable=True)
    new: JobStatus = _choice(JobStatus)
    at: datetime = _time()
    actor: str
    reason: str


class StageChange(SQLModel, table=True):
    """A stage was gated, or became stale: the part of a timeline that no job has."""

    __tablename__ = "stage_change"

    id: int = _id()
    stage_id: int = Field(foreign_key="stage.id", index=True, ondelete="CASCADE")
    new: StageMark = _choice(StageMark)
    at: datetime = _time()
    actor: str
    reason: str


class Worker(SQLModel, table=True):
    """A Celery worker process and the devices it owns."""

    id: int = _id()
    name: str = Field(unique=True)
    host: str
    pid: int
    pid_started: float
    boot_id: str
    queue: str = Field(description="x1, x2, ...: how many devices it owns.")
    devices: list[str] = _json()
    version: str
    started_at: datetime = _time()
    heartbeat_at: datetime = _time()
    stopped_at: datetime | None = _time(default=None)
    gpus: list[dict[str, Any]] = _json(default_factory=list, sa_column_kwargs={"server_default": "[]"})
    """Its devices as the driver last described them (`app.gpus.Gpu`)."""
    gpus_at: datetime | None = _time(default=None)
    held_back: str | None = Field(default=None, description="Why it takes no job although it is at none, in its own words.")
    points: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}, description="Metric points it has ever brought in.")
    unread: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}, description="Bytes of its job's files not in here.")


class Switch(SQLModel, table=True):
    """Something that a person has switched on, for the whole house; off when there is no row. A queue that is paused is one."""

    name: str = Field(primary_key=True)
    value: dict[str, Any] = _json()
    actor: str
    at: datetime = _time()


class Checkpoint(SQLModel, table=True):
    """A checkpoint file that a trainer has written whole, as its `.json` describes it. `path` is an address where there is a store."""

    __table_args__ = (Index(None, "stage_id", "val_loss"), NEVER_AGAIN)

    id: int = _id()
    run_id: int = Field(foreign_key="run.id", index=True, ondelete="CASCADE")
    stage_id: int = Field(foreign_key="stage.id", index=True, ondelete="CASCADE")
    job_id: int = Field(foreign_key="job.id", index=True, ondelete="CASCADE")
    attempt: int
    path: str = Field(unique=True)
    kind: str
    step: int
    epoch: float
    metrics: dict[str, float] = _json()
    val_loss: float | None = Field(default=None, index=True, description="As in `metrics`, for lists to be sorted by; None unless finite.")
    sha256: str
    size: int = Field(sa_type=BigInteger)
    pinned: bool = Field(default=False, description="A person wants it kept.")
    created_at: datetime = _time()
    stored_at: datetime | None = _time(
        default=None, description="Since when the object store has it, and it may be used. Of a file in a directory it is not asked."
    )
    removed_at: datetime | None = _time(
        default=None, description="When its trainer made room for a newer one; row and object go once the store has a later one."
    )


class Discard(SQLModel, table=True):
    """Something of the object store that no row names any more, and that is still to be removed from there."""

    __table_args__ = NEVER_AGAIN

    id: int = _id()
    name: str = Field(description="Address of a checkpoint, which has a note beside it, or of a directory.")
    is_directory: bool
    run_id: int | None = Field(default=None, index=True, description="Whose it was. No foreign key: the run may be what was deleted.")
    size: int = Field(sa_type=BigInteger, description="Bytes; 0 where nobody has asked.")
    at: datetime = _time()
    tried_at: datetime | None = _time(default=None, description="When the store last refused, or did not answer.")
    problem: str | None = None


class Evaluation(SQLModel, table=True):
    """Questions put to one checkpoint. `metrics` is filled when its job succeeds."""

    __table_args__ = NEVER_AGAIN

    id: int = _id()
    name: str
    run_id: int | None = Field(default=None, foreign_key="run.id", index=True, ondelete="CASCADE")
    checkpoint_id: int | None = _checkpoint(index=True)
    config: dict[str, Any] = _json()
    directory: str | None = Field(default=None, description="Where the successful attempt left predictions.jsonl and metrics.json.")
    metrics: dict[str, Any] | None = _json(default=None, nullable=True)
    request_key: str | None = Field(default=None, unique=True, description="As a run's.")
    request_hash: str
    created_at: datetime = _time()
    created_by: str


class Export(SQLModel, table=True):
    """A checkpoint as a directory that transformers loads. One for each file, whatever its names; its status is its newest job's."""

    __table_args__ = (UniqueConstraint("stage_id", "step", "sha256"), NEVER_AGAIN)

    id: int = _id()
    run_id: int = Field(foreign_key="run.id", index=True, ondelete="CASCADE")
    stage_id: int = Field(foreign_key="stage.id", ondelete="CASCADE")
    step: int
    sha256: str
    checkpoint_id: int | None = _checkpoint(index=True)
    path: str = Field(description="Of the checkpoint's file, under the name that lasts longest.")
    directory: str | None = Field(default=None, description="Where the successful attempt left it.")
    created_at: datetime = _time()
    created_by: str


class MetricSeries(SQLModel, table=True):
    """One named scalar of one attempt. It exists from its first point on."""

    __tablename__ = "metric_series"
    __table_args__ = (UniqueConstraint("job_id", "attempt", "name"),)

    id: int = _id()
    run_id: int | None = Field(default=None, foreign_key="run.id", index=True, ondelete="CASCADE")
    job_id: int = Field(foreign_key="job.id", ondelete="CASCADE")
    attempt: int
    name: str
    count: int = 0
    last_step: int = Field(default=0, sa_type=BigInteger)
    last_value: float | None = Field(default=None, description="None is NaN, which SQLite cannot keep.")


class MetricChunk(SQLModel, table=True):
    """Compressed columns of a series. Level 0 holds the points; each level above holds first, last, min, max and count of 16 below."""

    __tablename__ = "metric_chunk"

    series_id: int = Field(foreign_key="metric_series.id", primary_key=True, ondelete="CASCADE")
    level: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    first_step: int = Field(sa_type=BigInteger)
    last_step: int = Field(sa_type=BigInteger)
    first_t: float
    last_t: float
    data: bytes = Field(sa_type=LargeBinary)


class LogChunk(SQLModel, table=True):
    """A compressed piece of an attempt's output, at its byte offset in the file."""

    __tablename__ = "log_chunk"

    job_id: int = Field(foreign_key="job.id", primary_key=True, ondelete="CASCADE")
    attempt: int = Field(primary_key=True)
    offset: int = Field(primary_key=True, sa_type=BigInteger)
    size: int
    lines: int = Field(default=0, description="Ends of lines in the output up to the end of this piece, the pieces before it included.")
    data: bytes = Field(sa_type=LargeBinary)


class Sample(SQLModel, table=True):
    """What a model answered to one of its run's example questions after one validation."""

    __table_args__ = NEVER_AGAIN

    id: int = _id()
    run_id: int = Field(foreign_key="run.id", index=True, ondelete="CASCADE")
    stage_id: int = Field(foreign_key="stage.id", index=True, ondelete="CASCADE")
    job_id: int = Field(foreign_key="job.id", index=True, ondelete="CASCADE")
    attempt: int
    step: int
    url: str
    query: str
    references: list[str] = _json()
    prediction: str
    at: datetime = _time()


class Event(SQLModel, table=True):
    """Something a stream tells. Ids are given in commit order, so a reader that asks for `id > last` misses nothing."""

    __table_args__ = NEVER_AGAIN

    id: int = _id(sa_type=BigInteger().with_variant(Integer, "sqlite"))
    run_id: int | None = Field(default=None, index=True, description="No foreign key: news of a run outlive it, until they are pruned.")
    kind: str
    payload: dict[str, Any] = _json()
    at: datetime = _time(index=True)


class Token(SQLModel, table=True):
    """An API token. Only its hash is kept."""

    id: int = _id()
    name: str
    hash: str = Field(unique=True)
    scopes: list[str] = _json()
    created_at: datetime = _time()
    expires_at: datetime | None = _time(default=None)
    last_used_at: datetime | None = _time(default=None)
    revoked_at: datetime | None = _time(default=None)


class SignInLink(SQLModel, table=True):
    """A link that opens one browser session, once, within minutes. Only the hash of its key is kept."""

    __tablename__ = "sign_in_link"

    id: int = _id()
    hash: str = Field(unique=True)
    created_at: datetime = _time()
    expires_at: datetime = _time()
    used_at: datetime | None = _time(default=None)


class BrowserSession(SQLModel, table=True):
    """A signed-in browser, known by the hash of its cookie. One that was opened with a token may do what the token may, for as long as that lives."""

    __tablename__ = "browser_session"

    id: int = _id()
    hash: str = Field(unique=True)
    token_id: int | None = Field(default=None, foreign_key="token.id", index=True, ondelete="CASCADE", description="None: opened by a sign-in link.")
    created_at: datetime = _time()
    expires_at: datetime = _time()


_OPEN = text("status IN ('queued', 'starting', 'running', 'stopping', 'lost')")
ONE_OPEN_JOB_PER_STAGE = Index("uq_job_open_stage_id", Job.stage_id, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)  # type: ignore[arg-type]
"""Pressing resume twice, or in two tabs, cannot train a stage twice: the database refuses the second job."""
