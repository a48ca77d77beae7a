"""Checkpoints over HTTP."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app import db
from app.access.permissions import READ, Launcher
from app.checkpoints import exports, lists, retention
from app.checkpoints import service as checkpoints
from app.checkpoints.lists import Kind, Sort, Wanted
from app.deps import BellDep, Cursor, Limit, Page, Row, SessionDep, StateDep, SweepDep
from app.jobs import causes, endings, states, waiting
from app.models import Checkpoint, Export, JobStatus
from panollava.stages import Stage

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"], dependencies=[READ])


class CheckpointOut(Row):
    """A checkpoint file that is whole."""

    id: int
    run_id: int
    stage_id: int
    job_id: int
    attempt: int
    path: str
    kind: str
    step: int
    epoch: float
    metrics: dict[str, float]
    sha256: str
    size: int
    pinned: bool
    created_at: datetime


class CheckpointPatch(BaseModel):
    """What of a checkpoint a person decides."""

    model_config = ConfigDict(extra="forbid")

    pinned: bool = Field(description="Kept, whatever the run's rule says.")


class Removed(BaseModel):
    """What a removal came to."""

    bytes_freed: int = Field(description="What file system and store get back: nothing for a file that has another name still.")


class ExportOut(Row):
    """The export of a checkpoint as its job has it."""

    id: int
    run_id: int
    checkpoint_id: int | None
    job_id: int
    status: JobStatus
    is_lost: bool = Field(description="Somebody should be at it, but nothing has been heard for 30 s.")
    waiting_because: str | None = Field(description="Why it is not at work yet.")
    reason: str | None
    detail: str | None
    ended_because: str | None = Field(None, description="`reason` in words.")
    hint: str | None = Field(None, description="What is known to help.")
    attempt: int
    directory: str | None = Field(description="What `from_pretrained` takes, on the server, or its copy of an s3:// address; once it has succeeded.")
    is_gone: bool | None = Field(description="It was made, and somebody has removed the directory since. Null while the store does not say.")
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None


def get_checkpoint(checkpoint_id: int, session: SessionDep) -> Checkpoint:
    return checkpoints.get(session, checkpoint_id)


CheckpointDep = Annotated[Checkpoint, Depends(get_checkpoint, scope="function")]


@router.get("")
def list_checkpoints(
    session: SessionDep,
    run_id: Annotated[int | None, Query(description="Only of this run.")] = None,
    stage: Annotated[Stage | None, Query(description="Only of this stage.")] = None,
    kind: Annotated[Kind | None, Query(description="Only of this kind.")] = None,
    sort: Annotated[Sort, Query(description="A minus is downwards; by val_loss only those that have one.")] = Sort.newest,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[CheckpointOut]:
    """Newest first unless asked otherwise. best.ckpt and last.ckpt are listed beside the files that they are second names of."""
    return Page[CheckpointOut].of(lists.page(session, Wanted(run_id, stage, kind), sort, cursor, limit), limit)


@router.get("/{checkpoint_id}")
def show_checkpoint(checkpoint: CheckpointDep) -> CheckpointOut:
    """One checkpoint."""
    return CheckpointOut.model_validate(checkpoint)


@router.patch("/{checkpoint_id}")
def change_checkpoint(actor: Launcher, checkpoint: CheckpointDep, body: CheckpointPatch, session: SessionDep) -> CheckpointOut:
    """Pin its file, under all its names, or let it go."""
    retention.pin(session, checkpoint, body.pinned)
    return CheckpointOut.model_validate(checkpoint)


@router.delete("/{checkpoint_id}")
def delete_checkpoint(actor: Launcher, checkpoint: CheckpointDep, session: SessionDep, sweep: SweepDep) -> Removed:
    """Remove its file, under all its names. Refused, with the reason, for one that is kept for something: the best, a parent, a pinned one."""
    sweep()
    return Removed(bytes_freed=retention.delete(session, checkpoint))


@router.get("/{checkpoint_id}/export")
def show_export(checkpoint: CheckpointDep, session: SessionDep) -> ExportOut:
    """How far it is, and where it lies."""
    return described(session, exports.get(session, checkpoint))


@router.post("/{checkpoint_id}/export", status_code=202)
def export_checkpoint(actor: Launcher, checkpoint_id: int, state: StateDep, session: SessionDep, ring: BellDep) -> ExportOut:
    """Queue a directory that transformers loads by itself. Asked again it changes nothing, unless the export failed, was stopped or is gone."""
    gone = exports.look(state.reading, checkpoint_id)
    exported = exports.export(session, checkpoints.get(session, checkpoint_id), actor.name, lambda _export: gone)
    ring(exports.job_of(session, exported).devices)
    return described(session, exported, lambda export: gone if export.directory else False)


@router.post("/{checkpoint_id}/export/stop", status_code=202)
def stop_export(actor: Launcher, checkpoint: CheckpointDep, session: SessionDep) -> ExportOut:
    """Ask for its end; nothing is left of it."""
    exports.stop(session, exports.get(session, checkpoint), actor.name)
    return described(session, exports.get(session, checkpoint))


def described(session: SessionDep, export: Export, is_gone: Callable[[Export], bool | None] = exports.is_gone) -> ExportOut:
    job = exports.job_of(session, export)
    more: dict[str, Any] = {"job_id": job.id, "is_lost": states.is_lost(job, db.now(session)), "is_gone": is_gone(export)}
    more |= {"waiting_because": waiting.reasons(session, [job]).get(job.id)}
    more |= {"ended_because": endings.told(session, [job]).get(job.id), "hint": causes.hint(job)}
    return ExportOut.model_validate(job.model_dump() | export.model_dump() | more)
