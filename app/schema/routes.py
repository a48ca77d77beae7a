"""What a run can be asked for: the schema behind every form, flag and body, and its presets."""

from typing import Any

from fastapi import APIRouter

from app.access.permissions import READ
from panollava.config import RunConfig
from panollava.presets import PRESETS

router = APIRouter(tags=["schema"], dependencies=[READ])


@router.get("/schema/run")
def show_run_schema() -> dict[str, Any]:
    """JSON schema of a run's config: types, bounds, defaults, and a description of every field."""
    return RunConfig.model_json_schema()


@router.get("/presets")
def list_presets() -> dict[str, dict[str, Any]]:
    """Values by preset; POST /runs takes a preset's name."""
    return PRESETS
