"""What the API says of evaluations and takes from those who ask for them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app import db
from app.checkpoints import service as checkpoints
from app.deps import RequestKey, Row
from app.evaluations import service as evaluations
from app.jobs import causes, endings, states, waiting
from app.models import Evaluation, JobStatus
from panollava.config import EvaluateConfig, validated


class EvaluationRequest(BaseModel):
    """An evaluation to be made."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = Field(description="csv, checkpoint, controls, max_new_tokens, ...: the fields of `panollava evaluate`.")
    checkpoint_id: int | None = Field(None, description="A checkpoint of a run, instead of a path in `config`.")
    name: str | None = Field(None, min_length=1, max_length=200)
    devices: int = Field(1, ge=1)
    priority: int = Field(0, ge=-1000, le=1000, description="The higher, the sooner.")
    request_key: RequestKey = None


class EvaluationOut(Row):
    """An evaluation as its job has it."""

    id: int
    name: str
    status: JobStatus
    is_lost: bool = Field(description="Somebody should be at it, but nothing has been heard for 30 s.")
    waiting_because: str | None = Field(description="Why it is not at work yet.")
    run_id: int | None
    checkpoint_id: int | None
    job_id: int
    config: dict[str, Any]
    metrics: dict[str, Any] | None = Field(description="Once it has succeeded: captions and grounding by condition.")
    progress: dict[str, Any]
    reason: str | None
    detail: str | None
    ended_because: str | None = Field(None, description="`reason` in words.")
    hint: str | None = Field(None, description="What is known to help.")
    directory: str | None
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None


def read(session: Session, request: EvaluationRequest) -> EvaluateConfig:
    """Raises NotFound for the checkpoint, BadInput naming every field that is wrong."""
    values = dict(request.config)
    if request.checkpoint_id is not None:
        values["checkpoint"] = checkpoints.get(session, request.checkpoint_id).path
    return validated(EvaluateConfig, values)


def describe(session: Session, rows: Sequence[Evaluation]) -> list[EvaluationOut]:
    """Evaluations with their jobs; five queries however many there are."""
    jobs = evaluations.jobs_of(session, rows)
    reasons, ends, now = waiting.reasons(session, list(jobs.values())), endings.told(session, jobs.values()), db.now(session)
    return [
        EvaluationOut.model_validate(
            jobs[each.id].model_dump() | each.model_dump()
            | {"ended_because": ends.get(jobs[each.id].id), "hint": causes.hint(jobs[each.id])}
            | {"job_id": jobs[each.id].id, "waiting_because": reasons.get(jobs[each.id].id), "is_lost": states.is_lost(jobs[each.id], now)}
        )
        for each in rows
    ]  # fmt: skip
