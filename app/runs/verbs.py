"""What else can be asked of a run over HTTP: change, archive, delete, copy it; train a stage again; open a gate."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Query
from pydantic import BaseModel, ConfigDict, Field

from app.access.permissions import READ, Launcher
from app.artifacts import Notes
from app.deps import BellDep, RequestKey, Row, SessionDep, SettingsDep, StateDep, SweepDep
from app.models import Run
from app.runs import changes, copies, lineage, removal, stages
from app.runs import service as runs
from app.runs.routes import RunDep, detail
from app.runs.schemas import RunDetail
from panollava.config import RunConfig
from panollava.stages import Stage

Priority = Annotated[int, Field(ge=-1000, le=1000, description="The higher, the sooner; runs of one priority go by age.")]
router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[READ])


class Changes(BaseModel):
    """What is not given stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, pattern=RunConfig.model_fields["name"].metadata[0].pattern, description="Files keep the name they have.")
    priority: Priority | None = None
    note: str | None = Field(None, max_length=10_000, description="What you want to remember of it.")
    archived: bool | None = Field(None, description="Whether lists leave it out; false brings it back.")


class CloneRequest(BaseModel):
    """What is to be otherwise than in the run."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = Field({}, description="Settings over those of the run; its name is a free one unless it is given.")
    priority: Priority = 0
    request_key: RequestKey = None


class ForkRequest(CloneRequest):
    """Where the new run begins, and what is to be otherwise than in the run."""

    checkpoint_id: int | None = Field(None, description="The best one of the run's furthest stage that has one, if not given.")
    stages: list[Stage] | None = Field(None, min_length=1, description="Those behind the checkpoint's, if not given.")


class LinkOut(Row):
    """A checkpoint that a run started from."""

    run_id: int
    name: str | None = Field(description="The run's; null once it is deleted.")
    stage: Stage
    checkpoint_id: int
    step: int
    sha256: str


class ChildOut(Row):
    """A run that started from a checkpoint of this one."""

    run_id: int
    name: str
    link: LinkOut = Field(description="The checkpoint.")
    stale_at: datetime | None = Field(description="When that stage was begun again; null while the child is up to date.")
    stale_because: str | None


class LineageOut(BaseModel):
    """Where the weights of a run come from, and what came of its own."""

    ancestors: list[LinkOut] = Field(description="What it started from, then what that run started from, and so on.")
    children: list[ChildOut]


@router.patch("/{run_id}")
def update_run(actor: Launcher, run: RunDep, body: Changes, session: SessionDep) -> RunDetail:
    """Change its name, priority or note, or archive it. The config is never edited: clone the run instead."""
    changes.update(session, run, actor.name, **body.model_dump(exclude={"archived"}))
    if body.archived is not None:
        (changes.archive if body.archived else changes.unarchive)(session, run)
    return detail(session, run)


@router.post("/{run_id}/archive")
def archive_run(actor: Launcher, run: RunDep, session: SessionDep) -> RunDetail:
    """Leave it out of lists. Nothing of it is removed."""
    changes.archive(session, run)
    return detail(session, run)


@router.delete("/{run_id}", status_code=204)
def delete_run(
    actor: Launcher, run: RunDep, session: SessionDep, settings: SettingsDep, background: BackgroundTasks, sweep: SweepDep,
    force: Annotated[bool, Query(description="Also if other runs started from its checkpoints.")] = False,
) -> None:  # fmt: skip
    """Remove it for good, with its checkpoints, logs, metrics, evaluations and exports. Only while nothing of it waits or is at work."""
    background.add_task(removal.empty, removal.delete_run(session, run, settings.artifacts, force=force))
    sweep()


@router.post("/{run_id}/retry", status_code=202)
def retry_run(actor: Launcher, run: RunDep, session: SessionDep, ring: BellDep) -> RunDetail:
    """Go on with the stage that failed or was stopped, from its last good checkpoint."""
    stages.retry(session, run, actor.name)
    ring(run.config["devices"])
    return detail(session, run)


@router.post("/{run_id}/stages/{stage}/retry", status_code=202)
def retry_stage(
    actor: Launcher, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep,
    from_start: Annotated[bool, Query(description="Begin one again that failed or was stopped, instead of going on with it.")] = False,
) -> RunDetail:  # fmt: skip
    """Go on with a stage that failed or was stopped; train one again that has succeeded, which makes stale what was trained from it."""
    stages.retry_stage(session, run, stage, actor.name, from_start=from_start)
    ring(run.config["devices"])
    return detail(session, run)


@router.post("/{run_id}/stages/{stage}/retry-lighter", status_code=202)
def retry_lighter(actor: Launcher, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep) -> RunDetail:
    """Try a stage that ran out of memory again with half its micro-batches, or with what else its trainer suggested: `suggestion` of the stage."""
    stages.retry_lighter(session, run, stage, actor.name)
    ring(run.config["devices"])
    return detail(session, run)


@router.post("/{run_id}/stages/{stage}/open-gate", status_code=202)
def open_gate(actor: Launcher, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep) -> RunDetail:
    """Start a gated stage although its condition does not hold."""
    stages.open_gate(session, run, stage, actor.name)
    ring(run.config["devices"])
    return detail(session, run)


@router.post("/{run_id}/clone", status_code=201)
def clone_run(
    actor: Launcher, run_id: int, body: CloneRequest, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> RunDetail:  # fmt: skip
    """Queue what it was asked for once more, with these changes."""
    with state.reading() as reading:
        start = body.config.get("init_from") or runs.get(reading, run_id).config["init_from"]
    notes = Notes(start and str(start))
    made = copies.clone(session, runs.get(session, run_id), body.config, settings, actor.name, body.priority, body.request_key, notes)
    return queued(session, made, ring)


@router.post("/{run_id}/fork", status_code=201)
def fork_run(
    actor: Launcher, run_id: int, body: ForkRequest, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> RunDetail:  # fmt: skip
    """Queue a run that starts from the weights of one of its checkpoints: of the same stage or a later one, any number of times.

    A later stage with a gate meets it: the new run is `gated` where the checkpoint is not good enough, until a person opens the gate.
    """
    with state.reading() as reading:
        start = copies.start_of(reading, runs.get(reading, run_id), body.checkpoint_id)
    notes, run = Notes(start), runs.get(session, run_id)
    made = copies.fork(
        session, run, body.config, settings, actor.name, body.priority, body.request_key, body.checkpoint_id, body.stages, read_note=notes
    )  # fmt: skip
    return queued(session, made, ring)


@router.get("/{run_id}/lineage")
def show_lineage(run: RunDep, session: SessionDep) -> LineageOut:
    """What it started from, and which runs started from it."""
    return LineageOut.model_validate(
        {"ancestors": lineage.ancestors(session, run), "children": lineage.children(session, run)}, from_attributes=True
    )  # fmt: skip


def queued(session: SessionDep, run: Run, ring: BellDep) -> RunDetail:
    """A run that was just made, and the bell for it."""
    ring(run.config["devices"])
    return detail(session, runs.get(session, run.id))
