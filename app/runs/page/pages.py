"""The page of one run, whole or in pieces, and the forms on it. What it shows is worked out in view.py."""

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response

from app.access.permissions import READ, Launcher
from app.checkpoints import retention
from app.checkpoints.retention import Rule
from app.deps import BellDep, SessionDep, SweepDep
from app.listing import BLANK_IS_NONE, numbers
from app.logs import plain
from app.logs import service as logs
from app.models import Job
from app.pages import FrameDep, redirect
from app.runs import service as runs
from app.runs.page.view import RunView
from app.runs.routes import RunDep
from app.runs.table import lists
from panollava.stages import Stage

router = APIRouter(prefix="/runs", include_in_schema=False, dependencies=[READ])

Tab = Literal["charts", "config", "checkpoints", "samples", "timeline", "manage"]
Part = Literal["head", "track", "tabs", "now", "saved", "lineage", "config", "checkpoints", "samples", "timeline", "manage", "retention"]
LOG_BYTES = 16 * 1024
"""Of the log, in the page as it is first sent; its script brings more."""


@router.get("/latest")
def show_latest_run(frame: FrameDep) -> Response:
    """An address to keep: the newest run, or the list while there is none."""
    newest = lists.page(frame.session, limit=1)
    return redirect(frame.request, f"/runs/{newest[0].id}" if newest else "/runs")


@router.get("/{run_id:int}")
def show_run(
    run: RunDep, frame: FrameDep, tab: Tab = "charts", stage: Stage | Literal["all"] | None = None, part: Part | None = None,
    every: Annotated[bool, Query(alias="all")] = False, find: str = "",
    steps: Annotated[int | None, BLANK_IS_NONE, Query(ge=0, le=1000)] = None,
    log_stage: Stage | None = None, line: Annotated[int | None, Query(ge=1, le=1 << 31)] = None,
) -> Response:  # fmt: skip
    """The whole page, or one live piece of it. Not told a stage, it shows the one that the run is at.

    `all` is every setting of the config, or every answer to a sample; `find` is for settings that hold a text. `line` is where the log
    begins, `steps` how many step checkpoints the preview keeps. What else the address says is for the charts' and the log's scripts.
    """
    view = RunView(frame.session, run, frame.now, stage)
    state: dict[str, Any] = {
        "run": view.run,
        "stage": view.chosen,
        "tab": tab,
        "every": every,
        "find": find,
        "steps": steps,
        "address": _address(frame.request),
    }
    if part:
        return frame.render(f"runs/_{part}.html", view=view, **state)
    logged = view.logged(log_stage)
    log = _log(frame.session, logged, line) if logged else None
    return frame.render("runs/show.html", view=view, log_stage=log_stage, log=log, level_patterns=plain.PATTERNS, **state)


def _address(request: Request) -> Callable[..., str]:
    """This page with some of its state changed; what is None is left out, and so is where in the log the reader was."""

    def address(**changes: str | int | None) -> str:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name not in {"part", "line", *changes}]
        query = urlencode([*kept, *((name, value) for name, value in changes.items() if value is not None)])
        return f"{request.url.path}?{query}" if query else request.url.path

    return address


def _log(session: SessionDep, job: Job, line: int | None) -> logs.Part:
    """The end of the log, or where the line is that the reader was sent to."""
    offset = logs.offset_of(session, job, line) if line else -LOG_BYTES
    return logs.read(session, job, offset=offset, limit=LOG_BYTES, whole_lines=True)


@router.post("/{run_id:int}/stop")
def stop_run(actor: Launcher, request: Request, run: RunDep, session: SessionDep) -> Response:
    runs.stop(session, run, actor.name)
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/save")
def save_run(actor: Launcher, request: Request, run: RunDep, session: SessionDep) -> Response:
    runs.save(session, run, actor.name)
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/retention")
def apply_retention(
    actor: Launcher, request: Request, run: RunDep, session: SessionDep, sweep: SweepDep, steps: Annotated[int, Form(ge=0, le=1000)],
    automatic: Annotated[bool, Form()] = False, apply: Annotated[bool, Form()] = False, checkpoint_ids: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """Keep the rule; with `apply` remove what the page had shown, as far as it may still go."""
    rule = Rule(steps=steps, automatic=automatic)
    retention.keep(session, run, rule)
    if apply:
        retention.apply(session, run, rule, numbers([checkpoint_ids]))
        sweep()
    return redirect(request, f"/runs/{run.id}?tab=checkpoints")


@router.post("/{run_id:int}/resume")
def resume_run(actor: Launcher, request: Request, run: RunDep, session: SessionDep, ring: BellDep) -> Response:
    runs.resume(session, run, actor.name)
    ring(run.config["devices"])
    return redirect(request, f"/runs/{run.id}")
