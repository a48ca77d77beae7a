"""The forms of a run's page that do more than stop and resume, and the page that asks before a run is deleted."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Form, Request, Response

from app.access.permissions import READ, Launcher
from app.deps import BellDep, SessionDep, SettingsDep, StateDep, SweepDep
from app.pages import FrameDep, redirect
from app.runs import changes, copies, removal, stages
from app.runs import service as runs
from app.runs.routes import RunDep
from app.runs.stage_routes import notes_of_clone
from panollava.stages import Stage

router = APIRouter(prefix="/runs", include_in_schema=False, dependencies=[READ])


@router.post("/{run_id:int}/stages/{stage}/stop")
def stop_stage(actor: Launcher, request: Request, run: RunDep, stage: Stage, session: SessionDep) -> Response:
    stages.stop_stage(session, run, stage, actor.name)
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/stages/{stage}/save")
def save_stage(actor: Launcher, request: Request, run: RunDep, stage: Stage, session: SessionDep) -> Response:
    stages.save_stage(session, run, stage, actor.name)
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/stages/{stage}/resume")
def resume_stage(actor: Launcher, request: Request, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep) -> Response:
    stages.resume_stage(session, run, stage, actor.name)
    ring(run.config["devices"])
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/stages/{stage}/clone")
def clone_stage(
    actor: Launcher, request: Request, run_id: int, stage: Stage, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> Response:  # fmt: skip
    """Its page is that of the new run."""
    notes, run = notes_of_clone(state, run_id, stage), runs.get(session, run_id)
    made = copies.clone_stage(session, run, stage, {}, settings, actor.name, read_note=notes)
    ring(made.config["devices"])
    return redirect(request, f"/runs/{made.id}")


@router.post("/{run_id:int}/stages/{stage}/retry")
def retry_stage(
    actor: Launcher, request: Request, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep, from_start: Annotated[bool, Form()] = False
) -> Response:  # fmt: skip
    stages.retry_stage(session, run, stage, actor.name, from_start=from_start)
    ring(run.config["devices"])
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/stages/{stage}/retry-lighter")
def retry_lighter(actor: Launcher, request: Request, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep) -> Response:
    stages.retry_lighter(session, run, stage, actor.name)
    ring(run.config["devices"])
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/stages/{stage}/open-gate")
def open_gate(actor: Launcher, request: Request, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep) -> Response:
    stages.open_gate(session, run, stage, actor.name)
    ring(run.config["devices"])
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/archive")
def archive_run(actor: Launcher, request: Request, run: RunDep, session: SessionDep) -> Response:
    changes.archive(session, run)
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/unarchive")
def unarchive_run(actor: Launcher, request: Request, run: RunDep, session: SessionDep) -> Response:
    changes.unarchive(session, run)
    return redirect(request, f"/runs/{run.id}")


@router.post("/{run_id:int}/note")
def write_note(
    actor: Launcher, request: Request, run: RunDep, session: SessionDep, note: Annotated[str, Form(max_length=10_000)] = ""
) -> Response:  # fmt: skip
    changes.update(session, run, actor.name, note=note.strip())
    return redirect(request, f"/runs/{run.id}")


@router.get("/{run_id:int}/delete")
def ask_delete(run: RunDep, frame: FrameDep, settings: SettingsDep) -> Response:
    """What goes with the run, and the form that deletes it; or why it cannot be."""
    contents, at_work = removal.contents(frame.session, run, settings.artifacts), changes.open_job(frame.session, run)
    return frame.render("runs/delete.html", run=run, contents=contents, at_work=at_work)


@router.post("/{run_id:int}/delete")
def delete_run(
    actor: Launcher, request: Request, run: RunDep, session: SessionDep, settings: SettingsDep, background: BackgroundTasks, sweep: SweepDep,
    force: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    background.add_task(removal.empty, removal.delete_run(session, run, settings.artifacts, force=force))
    sweep()
    return redirect(request, "/runs")
