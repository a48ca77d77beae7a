"""Whether this process serves and which parts answer it, for those who start and watch it.

Open to everybody, so it says no more about a part than that.
"""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Literal, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.deps import StateDep
from app.outages import PartName

router = APIRouter(tags=["health"])


class PartStatus(BaseModel):
    status: Literal["ok", "away"]
    since: datetime | None
    """Since when it has been away, as far as this process knows."""


class Readiness(BaseModel):
    """`degraded`: without its broker jobs are found by sweeps, without `writes` it can only be read."""

    status: Literal["ok", "degraded", "down"]
    parts: dict[PartName, PartStatus]

    @classmethod
    def of(cls, parts: Mapping[PartName, datetime | None]) -> Self:
        status: Literal["ok", "degraded", "down"] = "down" if parts["database"] else "degraded" if any(parts.values()) else "ok"
        return cls(status=status, parts={name: PartStatus(status="away" if since else "ok", since=since) for name, since in parts.items()})


@router.get("/healthz")
def is_alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def is_ready(state: StateDep, response: Response) -> Readiness:
    """Whether requests can be served, and how each part is. 503 while the database is away; without its broker the house only finds jobs later."""
    readiness = Readiness.of(state.outages.look())
    if readiness.status == "down":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return readiness
