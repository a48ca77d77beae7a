"""Runs over HTTP: launch, watch, stop, save, resume. What else can be asked of one is in `verbs`."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.access.permissions import READ, Launcher, StillAllowedDep
from app.artifacts import Notes
from app.checkpoints import lists as checkpoints
from app.checkpoints import retention
from app.checkpoints.routes import CheckpointOut
from app.deps import BellDep, Cursor, Limit, Page, SessionDep, SettingsDep, StateDep, SweepDep
from app.events.routes import LastEventId
from app.events.stream import while_allowed
from app.jobs import queue, stopping
from app.logs import service as logs
from app.logs.plain import Level
from app.metrics import service as metrics
from app.metrics.service import Axis
from app.models import Run
from app.runs import lighter, request, schemas
from app.runs import service as runs
from app.runs.schemas import (
    AttemptOut,
    FoundOut,
    LineOut,
    LogOut,
    RetentionOut,
    RetentionRequest,
    RunDetail,
    RunOut,
    RunRequest,
    SeriesOut,
    StageOut,
    TransitionOut,
)
from app.runs.table import lists
from app.runs.table.lists import Shown, Sort, Wanted
from panollava.stages import Stage

SMOOTH = (
    "Weight w of the past: adds a column `ema`, s = w s + (1 - w) y over every point up to the bucket's last, over 1 - w^n. "
    "It runs on from attempt to attempt of a job, leaves out what is not finite, and is the same whatever part is asked for."
)
router = APIRouter(prefix="/runs", tags=["runs"], dependencies=[READ])


def get_run(run_id: int, session: SessionDep) -> Run:
    return runs.get(session, run_id)


RunDep = Annotated[Run, Depends(get_run, scope="function")]
LogStage = Annotated[Stage | None, Query(description="The last one that has begun, if not given.")]
LogAttempt = Annotated[int | None, Query(ge=1, description="The newest if not given.")]


@router.get("")
def list_runs(
    session: SessionDep,
    q: Annotated[str, Query(max_length=200, description="Part of the name, whatever the case of its letters, or the id.")] = "",
    status: Annotated[Shown | None, Query(description="As pages show it: `lost` where somebody should be at work and is silent.")] = None,
    sort: Annotated[Sort, Query(description="A minus is downwards; `val_loss` is the lowest of the furthest stage that has one.")] = Sort.newest,
    archived: Annotated[bool, Query(description="Those that were archived, instead of those that were not.")] = False,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[RunOut]:
    """Newest first unless asked otherwise, each with its stages."""
    rows = lists.page(session, Wanted(q, status, archived), sort, cursor, limit)
    return Page[RunOut].of(rows, limit, schemas.describe(session, list(runs.states(session, rows).values())))


@router.post("", status_code=201)
def create_run(actor: Launcher, body: RunRequest, session: SessionDep, settings: SettingsDep, ring: BellDep) -> RunDetail:
    """Queue a run. Everything that can be seen to fail is refused here, before anything is queued."""
    config = request.read(body.config, body.preset)
    notes = Notes(config.init_from)
    run = runs.create(session, config, settings, actor.name, priority=body.priority, request_key=body.request_key, read_note=notes)
    ring(config.devices)
    return detail(session, run)


@router.get("/{run_id}")
def show_run(run: RunDep, session: SessionDep) -> RunDetail:
    """A run, its config and its stages."""
    return detail(session, run)


@router.post("/{run_id}/stop", status_code=202, response_description=stopping.WORDS)
def stop_run(actor: Launcher, run: RunDep, session: SessionDep) -> RunDetail:
    """Ask for its end; `resume` continues from what was saved."""
    runs.stop(session, run, actor.name)
    return detail(session, run)


@router.post("/{run_id}/save", status_code=202)
def save_run(actor: Launcher, run: RunDep, session: SessionDep) -> RunDetail:
    """Ask for a checkpoint at the next step, without stopping."""
    runs.save(session, run, actor.name)
    return detail(session, run)


@router.post("/{run_id}/resume", status_code=202)
def resume_run(actor: Launcher, run: RunDep, session: SessionDep, ring: BellDep) -> RunDetail:
    """Queue the stage that failed or was stopped, from its last good checkpoint."""
    runs.resume(session, run, actor.name)
    ring(run.config["devices"])
    return detail(session, run)


@router.get("/{run_id}/stages")
def list_stages(run: RunDep, session: SessionDep) -> list[StageOut]:
    """In training order."""
    return detail(session, run).stages


@router.get("/{run_id}/checkpoints")
def list_run_checkpoints(run: RunDep, session: SessionDep, cursor: Cursor = None, limit: Limit = 50) -> Page[CheckpointOut]:
    """Newest first."""
    return Page[CheckpointOut].of(checkpoints.page(session, checkpoints.Wanted(run.id), cursor=cursor, limit=limit), limit)


@router.get("/{run_id}/retention")
def preview_retention(
    run: RunDep,
    session: SessionDep,
    steps: Annotated[int | None, Query(ge=0, le=1000, description="As if the run kept so many step checkpoints; its own rule if not given.")] = None,
) -> RetentionOut:
    """Which checkpoint files would go and which stay, and the bytes that this frees. Removes nothing."""
    rule = retention.rule_of(run)
    return RetentionOut.of(retention.plan(session, run, rule if steps is None else rule.model_copy(update={"steps": steps})))


@router.post("/{run_id}/retention")
def apply_retention(actor: Launcher, run: RunDep, body: RetentionRequest, session: SessionDep, sweep: SweepDep) -> RetentionOut:
    """Keep a rule, and remove what it does not keep unless told to wait. The best, the last, pinned, exported files and parents always stay."""
    rule = retention.Rule(steps=body.steps, automatic=body.automatic)
    retention.keep(session, run, rule)
    if not body.apply:
        return RetentionOut.of(retention.plan(session, run, rule))
    sweep()
    return RetentionOut.of(retention.apply(session, run, rule, body.checkpoint_ids), removed=True)


@router.get("/{run_id}/attempts")
def list_attempts(run: RunDep, session: SessionDep) -> list[AttemptOut]:
    """Every claim of its stages, oldest first, with what each was trained with and how its trainer ended."""
    rows = runs.attempts(session, run)
    overrides = lighter.in_force(session, [attempt for attempt, _stage in rows])
    return [AttemptOut.model_validate(each.model_dump() | {"stage": stage, "overrides": overrides[each.id]}) for each, stage in rows]


@router.get("/{run_id}/timeline")
def show_timeline(run: RunDep, session: SessionDep) -> list[TransitionOut]:
    """Every change of a status, with who made it and why, oldest first."""
    return [TransitionOut.model_validate(each) for each in queue.timeline(session, run.id)]


@router.get("/{run_id}/metrics/names")
def list_metric_names(run: RunDep, session: SessionDep) -> list[SeriesOut]:
    """What there is to draw, by name, older attempts first, each with its newest value. Points that a newer attempt replaced are counted too."""
    return [SeriesOut.of(each, stage) for each, stage in metrics.series(session, run.id)]


@router.get("/{run_id}/metrics")
def show_metrics(
    run: RunDep,
    session: SessionDep,
    names: Annotated[str | None, Query(description="Names joined by commas; all if not given.")] = None,
    stage: Stage | None = None,
    x: Annotated[Axis, Query(description="What `from` and `to` count: steps, epochs, or seconds since 1970.")] = "step",
    from_: Annotated[float | None, Query(alias="from", description="One bucket before it comes too, so that a line reaches the edge.")] = None,
    to: Annotated[float | None, Query(description="One bucket behind it comes too.")] = None,
    points: Annotated[int, Query(ge=1, le=5000, description="Buckets per line, at least, where it has as many points.")] = 500,
    smooth: Annotated[float, Query(ge=0, lt=1, description=SMOOTH)] = 0.0,
) -> list[LineOut]:
    """One line per name, stage and attempt. A line ends where a newer attempt took over."""
    wanted = names.split(",") if names else None
    return [LineOut.of(line) for line in metrics.query(session, run.id, wanted, stage, x, from_, to, points, smooth)]


@router.get("/{run_id}/logs")
def show_logs(
    run: RunDep,
    session: SessionDep,
    stage: LogStage = None,
    attempt: LogAttempt = None,
    offset: Annotated[int, Query(ge=0, description="Byte to begin at.")] = 0,
    limit: Annotated[int | None, Query(ge=1, le=1 << 20, description="Most bytes, 65536 if not given; of a search most lines, 200.")] = None,
    tail: Annotated[int | None, Query(ge=1, description="Begin so many bytes before the end instead.")] = None,
    line: Annotated[int | None, Query(ge=1, le=1 << 31, description="Begin at this line instead; the first is 1.")] = None,
    whole_lines: Annotated[bool, Query(description="Begin with the first line that begins there or later.")] = False,
    q: Annotated[str | None, Query(min_length=1, description="Only lines that contain this text, whatever the case of its letters.")] = None,
    level: Annotated[Level | None, Query(description="Only lines that are warnings, or errors.")] = None,
) -> LogOut | FoundOut:
    """What the trainer printed, from any byte on; go on at `next`. With `q` or `level` the lines that are meant, each with its byte and number."""
    of, job = runs.job_of(session, run, stage)
    if line is not None:
        offset = logs.offset_of(session, job, line, attempt)
    if q or level:
        return FoundOut(stage=of, **asdict(logs.search(session, job, q or "", level, attempt, offset, limit or 200)))
    part = logs.read(session, job, attempt, offset if tail is None else -tail, limit or logs.CHUNK, whole_lines=whole_lines)
    return LogOut(stage=of, **asdict(part))


@router.get("/{run_id}/logs/download", response_class=PlainTextResponse)
def download_logs(
    run: RunDep, session: SessionDep, state: StateDep, stage: LogStage = None, attempt: LogAttempt = None
) -> StreamingResponse:  # fmt: skip
    """All that an attempt has printed by now, byte for byte."""
    of, job = runs.job_of(session, run, stage)
    number, end = logs.reach(session, job, attempt)
    headers = {"Content-Disposition": f'attachment; filename="run-{run.id}-{of}-attempt-{number}.log"', "Content-Length": str(end)}
    return StreamingResponse(logs.download(state.reading, job.id, number, end), media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/{run_id}/events", response_class=EventSourceResponse)
async def stream_run_events(run: RunDep, state: StateDep, last_id: LastEventId, allowed: StillAllowedDep) -> AsyncIterator[ServerSentEvent]:
    """Events of this run from now on, or after the one named. The first is `hello`, with the id that the stream starts after."""
    async for event in while_allowed(state.hub.stream(last_id, run.id), allowed):
        yield event


def detail(session: SessionDep, run: Run) -> RunDetail:
    """As it stands."""
    return RunDetail.model_validate(schemas.describe(session, [runs.state(session, run)])[0])
