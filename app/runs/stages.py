"""What people ask of one stage of a run: stop, save, go on, begin again, pass its gate. Each works in the caller's transaction, which then rings."""

from collections.abc import Container
from typing import Any

from sqlmodel import Session, col, select

from app.errors import Conflict
from app.i18n import _
from app.jobs import service as jobs
from app.models import ENDED, Checkpoint, Job, JobStatus, Run, StageRun
from app.runs import chain, lighter, lineage
from app.runs import service as runs
from app.runs.service import GATED, RunState, StageState
from panollava import shortage
from panollava.config import RunConfig
from panollava.stages import Stage


def retry(session: Session, run: Run, actor: str) -> None:
    """Go on with the stage that failed or was stopped, from its last good checkpoint. Raises Conflict when no stage did."""
    runs.hold(session, run)
    current = runs.state(session, run).current
    if current.status == JobStatus.succeeded:
        raise Conflict(_("Run {id} has succeeded; name the stage that is to be trained again.").format(id=run.id))
    retry_stage(session, run, current.stage, actor)


def retry_stage(session: Session, run: Run, stage: Stage, actor: str, *, from_start: bool = False, reason: str | None = None) -> None:
    """One that failed or was stopped goes on from its last good checkpoint, unless it is to begin again; one that succeeded is trained again.

    What was trained from it is stale then. Raises Conflict where the stage before it is not done, or one behind it is at work.
    """
    runs.hold(session, run)
    state = runs.state(session, run)
    asked = runs.stage_of(state, stage)
    if why := why_not(state, asked):
        raise Conflict(why)
    assert asked.job
    if asked.job.status is JobStatus.succeeded or from_start:
        _begin_again(session, run, asked.row, actor, reason or "trained_again")
    else:
        jobs.retry(session, asked.job, actor, reason or "retry")


def retry_lighter(session: Session, run: Run, stage: Stage, actor: str) -> None:
    """Try a stage that ran out of memory again, with the settings that are known to need less: from its last good checkpoint where they allow it.

    Raises Conflict where nothing was suggested.
    """
    runs.hold(session, run)
    asked = runs.stage_of(runs.state(session, run), stage)
    if not (settings := suggested(session, asked)):
        raise Conflict(_("Nothing is known with which stage {stage} of run {id} would need less memory.").format(stage=stage, id=run.id))
    asked.row.overrides = (asked.row.overrides or {}) | settings
    assert asked.job
    tried = jobs.attempt_of(session, asked.job)
    tried.suggestion = tried.suggestion or settings
    session.add_all([asked.row, tried])
    from_start = not shortage.goes_on(RunConfig.model_validate(run.config), stage, settings)
    retry_stage(session, run, stage, actor, from_start=from_start, reason=lighter.REASON)


def suggested(session: Session, asked: StageState) -> dict[str, Any]:
    """The settings that need less memory, of a stage that has failed for want of it; empty where none are known."""
    attempt = lighter.newest(session, [asked.job]).get(asked.job.id) if asked.job else None
    return lighter.suggested(session.get_one(Run, asked.row.run_id), asked.row, asked.job, attempt)


def stop_stage(session: Session, run: Run, stage: Stage, actor: str) -> None:
    """End this stage; it saves first, and no stage follows it. Raises Conflict unless this one waits in the queue or is at work."""
    state = runs.state(session, run)
    jobs.request_stop(session, _begun(state, stage, ENDED, _("there is nothing to stop")), actor)


def save_stage(session: Session, run: Run, stage: Stage, actor: str) -> None:
    """Ask for a checkpoint at its next step. Raises Conflict unless this very stage is at work."""
    state = runs.state(session, run)
    jobs.request_save(session, _begun(state, stage, (*ENDED, JobStatus.queued), _("there is nothing to save")), actor)


def _begun(state: RunState, stage: Stage, refused: Container[JobStatus], why: str) -> Job:
    """A stage's job. Raises Conflict where it has none, or one that is in a state to refuse, and names the stage that the run is at."""
    asked = runs.stage_of(state, stage)
    if asked.job and asked.status not in refused and asked.status != GATED:
        return asked.job
    text = _("Stage {stage} of run {id} is {status}; {why}.").format(stage=stage, id=state.run.id, status=asked.status, why=why)
    if state.current.stage is not stage and state.current.status not in ENDED:
        text += " " + _("The run is at stage {stage}, which is {status}.").format(stage=state.current.stage, status=state.current.status)
    raise Conflict(text)


def resume_stage(session: Session, run: Run, stage: Stage, actor: str) -> None:
    """Go on with a stage that failed or was stopped, from its last good checkpoint. Raises Conflict for any other."""
    runs.hold(session, run)
    if runs.stage_of(runs.state(session, run), stage).status == JobStatus.succeeded:
        text = _("Stage {stage} of run {id} has succeeded; there is nothing to resume. A retry trains it again.")
        raise Conflict(text.format(stage=stage, id=run.id))
    retry_stage(session, run, stage, actor, reason="resumed")


def open_gate(session: Session, run: Run, stage: Stage, actor: str) -> None:
    """Start the stage although its condition does not hold. Raises Conflict for a gate that is not closed."""
    runs.hold(session, run)
    state = runs.state(session, run)
    asked = runs.stage_of(state, stage)
    if asked.status != GATED:
        text = _("Stage {stage} of run {id} is {status}; there is no closed gate to open.")
        raise Conflict(text.format(stage=stage, id=run.id, status=asked.status))
    if why := _in_between(state, asked):
        raise Conflict(why)
    chain.enqueue(session, run, asked.row, actor, "gate_opened")


def why_not(state: RunState, asked: StageState) -> str | None:
    """Why a stage cannot be trained again, or go on, as things are; None if it can."""
    if why := _in_between(state, asked):
        return why
    if asked.status == GATED:
        return _("The gate of stage {stage} is closed: {why}. Open it instead.").format(stage=asked.stage, why=asked.row.gated_because)
    if asked.job is None or asked.job.status not in ENDED:
        return _("Stage {stage} of run {id} is {status} already.").format(stage=asked.stage, id=state.run.id, status=asked.status)
    return None


def _in_between(state: RunState, asked: StageState) -> str | None:
    """What a stage before it has yet to do, or one behind it is at."""
    for each in state.stages:
        if each.row.position < asked.row.position and each.status != JobStatus.succeeded:
            text = _("Stage {stage} of run {id} starts from {other}, which is {status}.")
            return text.format(stage=asked.stage, id=state.run.id, other=each.stage, status=each.status)
        if each.row.position > asked.row.position and each.job and each.job.status not in ENDED:
            text = _("Stage {other} of run {id} is {status}; stop it before {stage} is trained again.")
            return text.format(stage=asked.stage, id=state.run.id, other=each.stage, status=each.status)
    return None


def _begin_again(session: Session, run: Run, stage: StageRun, actor: str, reason: str) -> None:
    """From what its parent hands over now; a first stage from what it started from, or from what that has come to be.

    Weights that it was begun from before are past its gate.
    """
    start = _newer_weights(session, run, stage) if stage.position == 0 else _best(session, _before(session, stage))
    if start is None or start.path == stage.init_checkpoint:
        chain.enqueue(session, run, stage, actor, reason)
    else:
        chain.begin(session, run, stage, start, actor, reason)


def _before(session: Session, stage: StageRun) -> StageRun:
    return session.exec(select(StageRun).where(StageRun.run_id == stage.run_id, StageRun.position == stage.position - 1)).one()


def _newer_weights(session: Session, run: Run, stage: StageRun) -> Checkpoint | None:
    """Where the stage that this run was forked from has been trained again since. It may be of a run that is deleted: then it stays as it is."""
    if stage.stale_at is None or run.origin is None or (parent := session.get(Run, run.parent_id)) is None:
        return None
    origin = runs.stage_of(runs.state(session, parent), Stage(run.origin["stage"]))
    if origin.status != JobStatus.succeeded:
        text = _("Stage {stage} of run {parent}, from which run {id} starts, is {status}.")
        raise Conflict(text.format(stage=origin.stage, parent=parent.id, id=run.id, status=origin.status))
    best = _best(session, origin.row)
    run.origin = lineage.origin(session, best)
    session.add(run)
    return best


def _best(session: Session, stage: StageRun) -> Checkpoint:
    found = session.exec(select(Checkpoint).where(col(Checkpoint.id) == stage.best_checkpoint_id)).first()
    if found is None:
        text = _("The best checkpoint of {stage} of run {id} is gone; train that stage again first.")
        raise Conflict(text.format(stage=stage.stage, id=stage.run_id))
    return found
