"""Checkpoints over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from app.access.permissions import READ
from app.checkpoints import lists
from app.checkpoints import service as checkpoints
from app.checkpoints.lists import Kind, Sort, Wanted
from app.deps import Cursor, Limit, Page, Row, SessionDep
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
    created_at: datetime


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
def show_checkpoint(checkpoint_id: int, session: SessionDep) -> CheckpointOut:
    """One checkpoint."""
    return CheckpointOut.model_validate(checkpoints.get(session, checkpoint_id))
