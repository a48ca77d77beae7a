"""Runs over HTTP: launch, watch, stop, save, resume."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.access.permissions import READ, Launcher
from app.checkpoints import service as checkpoints
from app.checkpoints.routes import CheckpointOut
from app.deps import BellDep, Cursor, Limit, Page, SessionDep, SettingsDep, StateDep
from app.events.routes import LastEventId
from app.jobs import queue
from app.logs import service as logs
from app.metrics import service as metrics
from app.metrics.service import Axis
from app.models import Run
from app.runs import request, schemas
from app.runs import service as runs
from app.runs.schemas import FoundOut, LineOut, LogOut, RunDetail, RunOut, RunRequest, StageOut, TransitionOut
from panollava.stages import Stage

router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[READ])


def get_run(run_id: int, session: SessionDep) -> Run:
    return runs.get(session, run_id)


RunDep = Annotated[Run, Depends(get_run, scope="function")]


@router.get("")
def list_runs(session: SessionDep, cursor: Cursor = None, limit: Limit = 50) -> Page[RunOut]:
    """Newest first, each with its stages."""
    rows = runs.page(session, cursor, limit)
    return Page[RunOut].of(rows, limit, schemas.describe(session, list(runs.states(session, rows).values())))


@router.post("", status_code=201)
def create_run(actor: Launcher, body: RunRequest, session: SessionDep, settings: SettingsDep, ring: BellDep) -> RunDetail:
    """Queue a run. Everything that can be seen to fail is refused here, before anything is queued."""
    config = request.read(body.config, body.preset)
    run = runs.create(session, config, settings, actor.name, priority=body.priority, request_key=body.request_key)
    ring(config.devices)
    return _show(session, run)


@router.get("/{run_id}")
def show_run(run: RunDep, session: SessionDep) -> RunDetail:
    """A run, its config and its stages."""
    return _show(session, run)


@router.post("/{run_id}/stop", status_code=202)
def stop_run(actor: Launcher, run: RunDep, session: SessionDep) -> RunDetail:
    """Ask for its end: the stage at work saves a checkpoint first. `resume` continues from it."""
    runs.stop(session, run, actor.name)
    return _show(session, run)


@router.post("/{run_id}/save", status_code=202)
def save_run(actor: Launcher, run: RunDep, session: SessionDep) -> RunDetail:
    """Ask for a checkpoint at the next step, without stopping."""
    runs.save(session, run, actor.name)
    return _show(session, run)


@router.post("/{run_id}/resume", status_code=202)
def resume_run(actor: Launcher, run: RunDep, session: SessionDep, ring: BellDep) -> RunDetail:
    """Queue the stage that failed or was stopped, from its last good checkpoint."""
    runs.resume(session, run, actor.name)
    ring(run.config["devices"])
    return _show(session, run)


@router.get("/{run_id}/stages")
def list_stages(run: RunDep, session: SessionDep) -> list[StageOut]:
    """In training order."""
    return _show(session, run).stages


@router.get("/{run_id}/checkpoints")
def list_run_checkpoints(run: RunDep, session: SessionDep, cursor: Cursor = None, limit: Limit = 50) -> Page[CheckpointOut]:
    """Newest first."""
    rows = checkpoints.page(session, run.id, cursor, limit)
    return Page[CheckpointOut].of(rows, limit)


@router.get("/{run_id}/timeline")
def show_timeline(run: RunDep, session: SessionDep) -> list[TransitionOut]:
    """Every change of a status, with who made it and why, oldest first."""
    return [TransitionOut.model_validate(each) for each in queue.timeline(session, run.id)]


@router.get("/{run_id}/metrics")
def show_metrics(
    run: RunDep,
    session: SessionDep,
    names: Annotated[str | None, Query(description="Names joined by commas; all if not given.")] = None,
    stage: Stage | None = None,
    x: Annotated[Axis, Query(description="What `from` and `to` count: steps, or seconds since 1970.")] = "step",
    from_: Annotated[float | None, Query(alias="from")] = None,
    to: float | None = None,
    points: Annotated[int, Query(ge=1, le=5000, description="Buckets per line, at least, where it has as many points.")] = 500,
) -> list[LineOut]:
    """One line per name, stage and attempt. A line ends where a newer attempt took over."""
    wanted = names.split(",") if names else None
    return [LineOut.of(line) for line in metrics.query(session, run.id, wanted, stage, x, from_, to, points)]


@router.get("/{run_id}/logs")
def show_logs(
    run: RunDep,
    session: SessionDep,
    stage: Annotated[Stage | None, Query(description="The last one that has begun, if not given.")] = None,
    attempt: Annotated[int | None, Query(ge=1, description="The newest if not given.")] = None,
    offset: Annotated[int, Query(ge=0, description="Byte to begin at.")] = 0,
    limit: Annotated[int | None, Query(ge=1, le=1 << 20, description="Most bytes, 65536 if not given; with `q` most lines, 200.")] = None,
    tail: Annotated[int | None, Query(ge=1, description="Begin so many bytes before the end instead.")] = None,
    q: Annotated[str | None, Query(min_length=1, description="Only lines that contain this text.")] = None,
) -> LogOut | FoundOut:
    """What the trainer printed, from any byte on; go on at `next`. With `q` the lines that contain it; go on behind the last one's offset."""
    of, job = runs.job_of(session, run, stage)
    if q is not None:
        lines = logs.search(session, job, q, attempt, offset, limit or 200)
        return FoundOut(stage=of, attempt=attempt or job.attempt, lines=lines)
    part = logs.read(session, job, attempt, offset if tail is None else -tail, limit or logs.CHUNK)
    return LogOut(stage=of, **asdict(part))


@router.get("/{run_id}/events", response_class=EventSourceResponse)
async def stream_run_events(run: RunDep, state: StateDep, last_id: LastEventId) -> AsyncIterator[ServerSentEvent]:
    """Events of this run from now on, or after the one named. The first is `hello`, with the id that the stream starts after."""
    async for event in state.hub.stream(last_id, run.id):
        yield event


def _show(session: SessionDep, run: Run) -> RunDetail:
    return RunDetail.model_validate(schemas.describe(session, [runs.state(session, run)])[0])
