"""Checkpoints over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from app.access.permissions import READ
from app.checkpoints import service as checkpoints
from app.deps import Cursor, Limit, Page, Row, SessionDep

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
    session: SessionDep, run_id: Annotated[int | None, Query(description="Only of this run.")] = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[CheckpointOut]:
    """Newest first."""
    return Page[CheckpointOut].of(checkpoints.page(session, run_id, cursor, limit), limit)


@router.get("/{checkpoint_id}")
def show_checkpoint(checkpoint_id: int, session: SessionDep) -> CheckpointOut:
    """One checkpoint."""
    return CheckpointOut.model_validate(checkpoints.get(session, checkpoint_id))
