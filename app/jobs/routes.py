"""The house over HTTP: what waits, what is at work, and who works."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from app.access.permissions import READ
from app.deps import Row, SessionDep
from app.jobs import queue
from app.models import JobKind, JobStatus
from panollava.stages import Stage

router = APIRouter(tags=["house"], dependencies=[READ])


class QueuedOut(Row):
    """A job that has not ended."""

    id: int
    kind: JobKind
    status: JobStatus
    is_lost: bool = Field(description="Somebody should be at it, but nothing has been heard for 30 s.")
    waiting_because: str | None = Field(description="Why a queued job is not at work yet.")
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
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None


@router.get("/queue")
def list_queue(session: SessionDep) -> list[QueuedOut]:
    """What is at work, then what waits in the order in which it will be taken, each with the reason."""
    return [QueuedOut.model_validate(each) for each in queue.entries(session)]


@router.get("/workers")
def list_workers(session: SessionDep) -> list[WorkerOut]:
    """By name."""
    return [WorkerOut.model_validate(each) for each in queue.workers(session)]
