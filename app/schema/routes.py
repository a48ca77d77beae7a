"""What a run can be asked for: the schema behind every form, flag and body, its presets, and what a request would come to."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.access.permissions import READ, Launcher
from app.deps import SettingsDep, StateDep
from app.launch import preview, takes
from app.problems import FieldProblem
from app.runs.schemas import RunRequest
from panollava.config import RunConfig
from panollava.preflight import StageFigures
from panollava.presets import PRESETS

router = APIRouter(tags=["schema"], dependencies=[READ])


class PlanOut(BaseModel):
    """A request thought through: what would be stored, what speaks against it, and the same in other words."""

    config: dict[str, Any] | None = Field(description="As POST /runs would store it, paths absolute; null when something speaks against it.")
    errors: list[FieldProblem]
    changed: list[str] = Field(description="Dotted names of what the request changes in its preset.")
    command: str = Field(description="For a terminal on the server's machine.")
    body: dict[str, Any] = Field(serialization_alias="json", description="Body of POST /runs.")
    curl: str = Field(description="For a shell with a token in $TOKEN.")
    stages: list[StageFigures] = Field(description="What each stage will take; empty while the settings make no run.")


@router.get("/schema/run")
def show_run_schema() -> dict[str, Any]:
    """JSON schema of a run's config: types, bounds, units, defaults, and a description of every field."""
    return RunConfig.model_json_schema()


@router.get("/presets")
def list_presets() -> dict[str, dict[str, Any]]:
    """Values by preset; POST /runs takes a preset's name."""
    return PRESETS


@router.post("/plan")
def plan_run(_actor: Launcher, request: Request, body: RunRequest, state: StateDep, settings: SettingsDep) -> PlanOut:
    """What POST /runs would make of this body, what that would take, and why it would not. Nothing is queued."""
    plan = preview.plan(body, str(request.base_url).rstrip("/"), settings)
    with state.reading() as session:
        stages = takes.takes(session, plan, settings)
    return PlanOut(
        config=plan.resolved.model_dump(mode="json") if plan.resolved else None,
        errors=[FieldProblem(field=field, message=message) for field, message in plan.errors],
        changed=plan.changed,
        command=plan.command,
        body=plan.body,
        curl=plan.curl,
        stages=stages,
    )
