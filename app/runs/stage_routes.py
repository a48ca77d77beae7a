"""What is asked of one stage of a run over HTTP as it is of the run: stop, save, resume, clone, fork. Its retries and its gate are in `verbs`."""

from fastapi import APIRouter
from pydantic import Field

from app.access.permissions import READ, Launcher
from app.artifacts import Notes
from app.deps import BellDep, SessionDep, SettingsDep, StateDep
from app.jobs import stopping
from app.runs import copies, stages
from app.runs import service as runs
from app.runs.routes import RunDep, detail
from app.runs.schemas import RunDetail
from app.runs.verbs import CloneRequest, ForkRequest, queued
from panollava.stages import Stage

router = APIRouter(prefix="/runs/{run_id}/stages/{stage}", tags=["runs"], dependencies=[READ])


class StageForkRequest(ForkRequest):
    """Where the new run begins, and what is to be otherwise than in the run."""

    checkpoint_id: int | None = Field(None, description="One of this stage's; its best one if not given.")


@router.post("/stop", status_code=202, response_description=stopping.WORDS)
def stop_stage(actor: Launcher, run: RunDep, stage: Stage, session: SessionDep) -> RunDetail:
    """Ask for its end, and for that of no other stage: 409 unless this one is queued or at work. No stage follows one that was stopped."""
    stages.stop_stage(session, run, stage, actor.name)
    return detail(session, run)


@router.post("/save", status_code=202)
def save_stage(actor: Launcher, run: RunDep, stage: Stage, session: SessionDep) -> RunDetail:
    """Ask for a checkpoint at its next step, without stopping. 409 unless this very stage is at work."""
    stages.save_stage(session, run, stage, actor.name)
    return detail(session, run)


@router.post("/resume", status_code=202)
def resume_stage(actor: Launcher, run: RunDep, stage: Stage, session: SessionDep, ring: BellDep) -> RunDetail:
    """Queue it from its last good checkpoint: 409 unless it failed or was stopped. `retry` also trains one again that has succeeded."""
    stages.resume_stage(session, run, stage, actor.name)
    ring(run.config["devices"])
    return detail(session, run)


@router.post("/clone", status_code=201)
def clone_stage(
    actor: Launcher, run_id: int, stage: Stage, body: CloneRequest, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> RunDetail:  # fmt: skip
    """Queue a run that trains this stage alone once more, from the weights that it began with here, with these changes."""
    notes, run = notes_of_clone(state, run_id, stage), runs.get(session, run_id)
    made = copies.clone_stage(session, run, stage, body.config, settings, actor.name, body.priority, body.request_key, notes)
    return queued(session, made, ring)


def notes_of_clone(state: StateDep, run_id: int, stage: Stage) -> Notes:
    """What the stage began with, read before anybody writes."""
    with state.reading() as reading:
        asked = runs.stage_of(runs.state(reading, runs.get(reading, run_id)), stage)
    return Notes(asked.row.init_checkpoint)


@router.post("/fork", status_code=201)
def fork_stage(
    actor: Launcher, run_id: int, stage: Stage, body: StageForkRequest, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> RunDetail:  # fmt: skip
    """Queue a run that starts from one of this stage's checkpoints: the stages behind it, unless others are asked for."""
    with state.reading() as reading:
        start = copies.start_of(reading, runs.get(reading, run_id), body.checkpoint_id, stage)
    notes, run = Notes(start), runs.get(session, run_id)
    made = copies.fork(
        session, run, body.config, settings, actor.name, body.priority, body.request_key, body.checkpoint_id, body.stages, stage, notes
    )
    return queued(session, made, ring)
