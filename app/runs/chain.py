"""How a stage of a run begins: the weights it starts from, its gate, its job; and what becomes stale when it begins again."""

from collections.abc import Iterator

from sqlmodel import Session, col, select

from app import artifacts, db
from app.artifacts import ReadNote
from app.checkpoints import service as checkpoints
from app.i18n import _
from app.jobs import service as jobs
from app.models import Checkpoint, Job, JobKind, Run, StageChange, StageMark, StageRun
from panollava import gates, rundir
from panollava.config import RunConfig
from panollava.stages import Stage


def begin(session: Session, run: Run, stage: StageRun, start: Checkpoint, actor: str, reason: str) -> Job | None:
    """Queue a stage from a checkpoint that is handed over to it. None while its gate is closed, which the stage then says."""
    before = session.get_one(StageRun, start.stage_id)
    stage.init_checkpoint = start.path
    if not _is_let_through(session, run, stage, before.stage, start.val_loss, actor):
        return None
    if before.stale_at is None:
        stage.stale_at = stage.stale_because = None
    return enqueue(session, run, stage, actor, reason)


def begin_run(session: Session, run: Run, first: StageRun, actor: str, reason: str, read_note: ReadNote) -> Job | None:
    """Queue the first stage of a run. One that starts from a checkpoint meets its gate as in a chain, also of a file that is none of ours."""
    if first.init_checkpoint is None:
        return enqueue(session, run, first, actor, reason)
    if start := checkpoints.at(session, first.init_checkpoint):
        return begin(session, run, first, start, actor, reason)
    note = read_note(first.init_checkpoint)
    if not _is_let_through(session, run, first, note.stage, note.metrics.get("val_loss"), actor):
        return None
    return enqueue(session, run, first, actor, reason)


def _is_let_through(session: Session, run: Run, stage: StageRun, before: Stage, val_loss: float | None, actor: str) -> bool:
    """Whether its gate is open to what `before` hands over. A checkpoint of the stage itself is past it."""
    config = RunConfig.model_validate(run.config).stages[stage.stage]
    if before is stage.stage or (why := gates.why_closed(config, before, val_loss)) is None:
        return True
    stage.gated_because = why
    session.add_all([stage, _change(session, stage, StageMark.gated, actor, why)])
    return False


def enqueue(session: Session, run: Run, stage: StageRun, actor: str, reason: str) -> Job:
    """Queue a stage at its start, whatever its gate says. One that was trained before is trained again, and what came of it is stale."""
    stage.gated_because = None
    session.add(stage)
    if (job := newest_job(session, stage)) is not None:
        jobs.begin_again(session, job, actor, reason)
        _mark_heirs(session, stage, actor)
        return job
    directory = artifacts.join(run.directory, str(rundir.stage_dir("", run.name, stage.stage)))
    job = Job(
        kind=JobKind.train, run_id=run.id, stage_id=stage.id, devices=run.config["devices"], priority=run.priority, directory=directory,
        max_attempts=RunConfig.model_construct(**run.config).max_attempts,
    )  # fmt: skip
    return jobs.enqueue(session, job, actor, reason)


def newest_job(session: Session, stage: StageRun) -> Job | None:
    return session.exec(select(Job).where(Job.stage_id == stage.id).order_by(col(Job.id).desc()).limit(1)).first()


def _mark_heirs(session: Session, stage: StageRun, actor: str) -> None:
    """All that was trained from this stage, in its run and in others, is stale; a next stage that its gate kept back waits for it again."""
    now = db.now(session)
    text = _("{stage} of run {id} was begun again").format(stage=stage.stage, id=stage.run_id)
    for heir in _heirs(session, stage):
        if (heir.run_id, heir.position) == (stage.run_id, stage.position + 1):
            heir.gated_because = None
        if newest_job(session, heir):
            heir.stale_at, heir.stale_because = now, text
            session.add(_change(session, heir, StageMark.stale, actor, text))
        session.add(heir)


def _heirs(session: Session, stage: StageRun) -> Iterator[StageRun]:
    """The stage after it, the first stages of runs that started from it, and theirs."""
    after = select(StageRun).where(StageRun.run_id == stage.run_id, StageRun.position == stage.position + 1)
    for heir in [*session.exec(after), *_forked(session, stage)]:
        yield heir
        yield from _heirs(session, heir)


def _forked(session: Session, stage: StageRun) -> list[StageRun]:
    query = select(StageRun, Run).join(Run, col(Run.id) == StageRun.run_id).where(Run.parent_id == stage.run_id, StageRun.position == 0)
    return [first for first, run in session.exec(query.order_by(col(Run.id))) if run.origin and run.origin["stage"] == stage.stage]


def _change(session: Session, stage: StageRun, new: StageMark, actor: str, reason: str) -> StageChange:
    return StageChange(stage_id=stage.id, new=new, at=db.now(session), actor=actor, reason=reason)
