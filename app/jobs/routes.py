"""The house over HTTP: what waits, what is at work, who works, and what people do to the queue."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.access.permissions import READ, Launcher
from app.deps import BellDep, Row, SessionDep
from app.errors import Invalid
from app.gpus import Gpu
from app.i18n import _
from app.jobs import order, pauses, queue
from app.jobs import service as jobs
from app.jobs.order import After, Before
from app.models import Job, JobKind, JobStatus
from panollava.stages import Stage

router = APIRouter(tags=["house"], dependencies=[READ])


class QueuedOut(Row):
    """A job that has not ended."""

    id: int
    kind: JobKind
    status: JobStatus
    is_lost: bool = Field(description="Somebody should be at it, but nothing has been heard for 30 s.")
    waiting_because: str | None = Field(description="Why a queued job is not at work yet.")
    ended_because: str | None = Field(description="How the attempt before ended, of one that waits for its next.")
    run_id: int | None
    stage: Stage | None
    evaluation_id: int | None
    export_id: int | None
    devices: int
    priority: int
    attempt: int
    worker_id: int | None
    progress: dict[str, Any]
    queued_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None


class WorkerOut(Row):
    """A worker that is, or was."""

    id: int
    name: str
    host: str
    queue: str
    devices: list[str]
    version: str
    is_alive: bool = Field(description="Heard of in the last 30 s, and not stopped.")
    job_id: int | None = Field(description="What it is at.")
    held_back: str | None = Field(description="Why it takes no job although it is at none.")
    gpus: list[Gpu] = Field(description="Its GPUs as the driver described them at `gpus_at`, with every process on them.")
    gpus_at: datetime | None
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None


QueueName = Annotated[str, Field(pattern=r"^(all|x[1-9]\d{0,2})$", description="x1, x2, ...: jobs for so many devices; `all` for every queue.")]
Reason = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$", description="What everybody reads who waits.")]


class Asked(BaseModel):
    """Base of what is asked of the queue. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class PauseRequest(Asked):
    queue: QueueName = pauses.EVERYTHING
    reason: Reason = ""


class ResumeRequest(Asked):
    queue: QueueName = pauses.EVERYTHING


class ReorderRequest(Asked):
    """One of `before`, `after` and `priority`; none of them is the top of the queue."""

    job_id: int
    before: int | None = Field(None, description="The job that it is to be taken right before; it gets the same priority.")
    after: int | None = Field(None, description="The job that it is to be taken right after; it gets the same priority.")
    priority: int | None = Field(None, ge=-order.MOST_PRIORITY, le=order.MOST_PRIORITY, description="The higher the sooner.")


class PauseOut(Row):
    """A paused queue."""

    queue: str
    reason: str
    actor: str
    at: datetime


@router.get("/queue")
def list_queue(session: SessionDep) -> list[QueuedOut]:
    """What is at work, then what waits in the order in which it will be taken, each with the reason."""
    return [QueuedOut.model_validate(each) for each in queue.entries(session)]


@router.get("/queue/paused")
def list_paused(session: SessionDep) -> list[PauseOut]:
    """Queues from which nothing is taken."""
    return [PauseOut.model_validate(each) for each in pauses.paused(session).values()]


@router.post("/queue/pause")
def pause_queue(actor: Launcher, body: PauseRequest, session: SessionDep) -> list[PauseOut]:
    """No worker takes a job from it any more; what is at work goes on."""
    pauses.pause(session, actor.name, body.queue, body.reason)
    return list_paused(session)


@router.post("/queue/resume")
def resume_queue(actor: Launcher, body: ResumeRequest, session: SessionDep, ring: BellDep) -> list[PauseOut]:
    """The other way round; what is left paused."""
    for devices in pauses.resume(session, actor.name, body.queue):
        ring(devices)
    return list_paused(session)


@router.post("/queue/reorder")
def reorder_queue(actor: Launcher, body: ReorderRequest, session: SessionDep) -> list[QueuedOut]:
    """Move a job that waits: beside another one, to another priority, or to the top of its queue. 409 if it has been taken meanwhile."""
    move(session, jobs.get(session, body.job_id), actor.name, body)
    return list_queue(session)


def move(session: Session, job: Job, actor: str, asked: ReorderRequest) -> None:
    """Raises Invalid when several places are asked for."""
    match asked.before, asked.after, asked.priority:
        case None, None, None:
            order.reorder(session, job, actor)
        case int(other), None, None:
            order.reorder(session, job, actor, Before(other))
        case None, int(other), None:
            order.reorder(session, job, actor, After(other))
        case None, None, int(priority):
            order.prioritise(session, job, actor, priority)
        case _several:
            raise Invalid(_("Say one of before, after and priority."))


@router.get("/workers")
def list_workers(session: SessionDep) -> list[WorkerOut]:
    """By name."""
    return [WorkerOut.model_validate(each) for each in queue.workers(session)]
