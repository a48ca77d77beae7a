"""Runs and their stages: create, stop, resume, and what follows a stage that succeeded. Their status is read off their jobs."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from app import artifacts, db
from app.artifacts import ReadNote
from app.checkpoints import service as checkpoints
from app.errors import Conflict, NotFound
from app.i18n import _
from app.jobs import service as jobs
from app.models import ACTIVE, ENDED, Attempt, Checkpoint, Job, JobStatus, Run, StageMark, StageRun
from app.paths import shared_cache
from app.requests import digest, requested
from app.runs import chain, lineage
from app.runs.request import resolve
from app.settings import Settings
from panollava.config import RunConfig
from panollava.stages import Stage

WAITING = "waiting"
"""Status of a stage that has no job yet, because the one before it has not succeeded."""
GATED = StageMark.gated.value
"""Status of a stage whose gate is closed."""


@dataclass(frozen=True)
class StageState:
    """A stage and its newest job, if it has one."""

    row: StageRun
    job: Job | None

    @property
    def stage(self) -> Stage:
        return self.row.stage

    @property
    def status(self) -> str:
        if self.row.gated_because:
            return GATED
        return self.job.status if self.job else WAITING


@dataclass(frozen=True)
class RunState:
    """A run and its stages, in training order."""

    run: Run
    stages: Sequence[StageState]

    @property
    def current(self) -> StageState:
        """The first stage that has not succeeded, or the last one of all."""
        return next((each for each in self.stages if each.status != JobStatus.succeeded), self.stages[-1])

    @property
    def status(self) -> str:
        return self.current.status


def create(
    session: Session, config: RunConfig, settings: Settings, actor: str, priority: int = 0, request_key: str | None = None, asked: str = "",
    read_note: ReadNote = artifacts.read_note,
) -> Run:  # fmt: skip
    """A run, its stages and its first job, or nothing at all; no job where the gate of its first stage is closed. The caller commits, then rings.

    The same `request_key` with the same request gives the same run again; `asked` is the digest of a request that is no config itself.
    Who holds a transaction for it names as `read_note` the `artifacts.Notes` that were read before.
    Raises Conflict when the key comes with another request, and Forbidden, Invalid or BadInput for what cannot be trained.
    """
    asked = asked or digest(config.model_dump(), priority)
    if request_key and (before := requested(session, Run, request_key, asked)):
        return before
    resolved = resolve(config, settings, read_note)
    start = checkpoints.at(session, resolved.init_from) if resolved.init_from else None
    if start:
        start = checkpoints.hold(session, start)
        resolved = resolved.model_copy(update={"init_from": start.path})
    run = Run(
        name=config.name, config={}, priority=priority, request_key=request_key, request_hash=asked, created_at=db.now(session), created_by=actor
    )
    session.add(run)
    session.flush()
    run.directory = artifacts.free(artifacts.join(settings.artifacts, f"run-{run.id}"))
    run.config = resolved.model_copy(update={"output_dir": run.directory, "log_dir": ""} | shared_cache(settings)).model_dump(mode="json")
    rows = [StageRun(run_id=run.id, stage=stage, position=position) for position, stage in enumerate(config.stage)]
    rows[0].init_checkpoint = resolved.init_from
    if start:
        run.parent_id, run.origin = start.run_id, lineage.origin(session, start)
    session.add_all(rows)
    session.flush()
    chain.begin_run(session, run, rows[0], actor, "submitted", read_note)
    return run


def get(session: Session, run_id: int) -> Run:
    """Raises NotFound."""
    if (run := session.get(Run, run_id)) is None:
        raise NotFound(_("There is no run {id}.").format(id=run_id))
    return run


def hold(session: Session, run: Run) -> None:
    """Until this transaction ends nobody else begins, deletes or forks what is this run's. Raises NotFound if it was deleted meanwhile."""
    db.lock(session, f"run {run.id}")
    if session.exec(select(Run.id).where(Run.id == run.id)).first() is None:
        raise NotFound(_("There is no run {id}.").format(id=run.id))


def states(session: Session, runs: Sequence[Run]) -> dict[int, RunState]:
    """Stages and statuses by run id. One query for a page of any length."""
    query = select(StageRun, Job).outerjoin(Job, col(Job.stage_id) == StageRun.id)
    query = query.where(col(StageRun.run_id).in_([run.id for run in runs])).order_by(col(StageRun.position), col(Job.id))
    found = session.exec(query.execution_options(populate_existing=True))  # as things stand now, also for who waited for a lock
    newest = {row.id: StageState(row, job) for row, job in found}
    return {run.id: RunState(run, [each for each in newest.values() if each.row.run_id == run.id]) for run in runs}


def state(session: Session, run: Run) -> RunState:
    """Raises NotFound for a run that was deleted since it was read: no other has no stages."""
    if not (found := states(session, [run])[run.id]).stages:
        raise NotFound(_("There is no run {id}.").format(id=run.id))
    return found


def stage_of(state: RunState, stage: Stage) -> StageState:
    """Raises NotFound."""
    if (found := next((each for each in state.stages if each.stage is stage), None)) is None:
        raise NotFound(_("Run {id} has no stage {stage}.").format(id=state.run.id, stage=stage))
    return found


def status(session: Session, run: Run) -> str:
    """The status of the first stage that has not succeeded; `succeeded` when all have."""
    return state(session, run).status


def job_of(session: Session, run: Run, stage: Stage | None = None) -> tuple[Stage, Job]:
    """The newest job of a stage, or of the last stage that has one. Raises NotFound when there is none."""
    begun = [each for each in state(session, run).stages if each.job and stage in (None, each.stage)]
    if not begun and stage is None:
        raise NotFound(_("No stage of run {id} has begun.").format(id=run.id))
    if not begun:
        raise NotFound(_("Stage {stage} of run {id} has not begun.").format(stage=stage, id=run.id))
    assert begun[-1].job
    return begun[-1].stage, begun[-1].job


def attempts(session: Session, run: Run) -> list[tuple[Attempt, Stage]]:
    """Of all stages, oldest first."""
    query = select(Attempt, StageRun.stage).join(Job, col(Job.id) == Attempt.job_id).join(StageRun, col(StageRun.id) == Job.stage_id)
    return [(attempt, Stage(stage)) for attempt, stage in session.exec(query.where(StageRun.run_id == run.id).order_by(col(Attempt.id)))]


def stop(session: Session, run: Run, actor: str) -> None:
    """End the stage that is queued or at work; it saves first, and no stage follows it. Raises Conflict when there is none."""
    current = _held(session, run)
    job = current.job
    if job is None or job.status in ENDED:
        raise Conflict(_gated(run, current) or _("Run {id} has {status}; there is nothing to stop.").format(id=run.id, status=current.status))
    jobs.request_stop(session, job, actor)


def save(session: Session, run: Run, actor: str) -> None:
    """Ask the stage at work for a checkpoint at its next step. Raises Conflict when none is at work."""
    current = _held(session, run)
    if (job := current.job) is None:
        raise Conflict(_gated(run, current) or _("Run {id} is not at work; there is nothing to save.").format(id=run.id))
    jobs.request_save(session, job, actor)


def _held(session: Session, run: Run) -> StageState:
    """The stage that the run is at: its worker does not end it, and so begin the next one, before this transaction ends."""
    current = state(session, run).current
    while current.job:
        session.refresh(current.job, with_for_update=True)
        if (now := state(session, run).current).job is current.job:
            return now
        current = now
    return current


def resume(session: Session, run: Run, actor: str) -> None:
    """Queue the stage that failed or was stopped, from its last good checkpoint. Raises Conflict when no stage did, saying what the run is at."""
    hold(session, run)
    current = state(session, run).current
    if current.job is None or current.status not in (JobStatus.failed, JobStatus.stopped):
        raise Conflict(_doing(session, run, current))
    jobs.retry(session, current.job, actor, reason="resumed")


def _doing(session: Session, run: Run, current: StageState) -> str:
    job = current.job
    if job and job.status is JobStatus.queued:
        why = jobs.why_waiting(session, job)
        return _("Run {id} is queued already: stage {stage} waits, {why}.").format(id=run.id, stage=current.stage, why=why)
    if job and job.status in ACTIVE:
        text = _("Run {id} is at work already: stage {stage} is {status}, attempt {attempt}.")
        return text.format(id=run.id, stage=current.stage, status=job.status, attempt=job.attempt)
    return _gated(run, current) or _("Run {id} has {status}; there is nothing to resume.").format(id=run.id, status=current.status)


def _gated(run: Run, current: StageState) -> str | None:
    """None unless its gate is what keeps the run."""
    text = _("Run {id} is gated before {stage}: {why}. Open the gate to go on.")
    return text.format(id=run.id, stage=current.stage, why=current.row.gated_because) if current.status == GATED else None


def finish_stage(session: Session, job: Job, best: Checkpoint, actor: str) -> None:
    """What follows a stage that succeeded: its best checkpoint is named, and the next stage queued from it, unless its gate is closed.

    A next stage that has succeeded before is stale and stays as it is: whether it is trained again is for a person to say. When somebody
    had asked for a stop, the next stage is there but stopped, so that `resume` finds it.
    """
    stage, run = session.get_one(StageRun, job.stage_id), session.get_one(Run, job.run_id)
    stage.best_checkpoint_id = best.id
    session.add(stage)
    later = select(StageRun).where(StageRun.run_id == run.id, StageRun.position == stage.position + 1)
    if (following := session.exec(later).first()) is None:
        return
    before = chain.newest_job(session, following)
    if before and before.status not in (JobStatus.failed, JobStatus.stopped):
        return
    queued = chain.begin(session, run, following, best, actor, f"{stage.stage}_succeeded")
    if queued and job.stop_requested_at:
        jobs.request_stop(session, queued, actor)
