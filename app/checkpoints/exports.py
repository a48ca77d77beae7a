"""Exports: checkpoints as directories that transformers loads by itself, below their run's directory or its address in a store.

One for each file, whatever its names. Its status is its newest job's; the worker runs `panollava export`.
"""

from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path

from sqlmodel import Session, col, select

from app import artifacts, db
from app.checkpoints import kept
from app.checkpoints import service as checkpoints
from app.errors import Conflict, Invalid, NotFound
from app.i18n import _
from app.jobs import service as jobs
from app.models import ENDED, Checkpoint, Export, Job, JobKind, JobStatus, Run, StageRun
from app.runs import service as runs
from panollava import rundir
from panollava.errors import BadInput
from panollava.stages import Stage

MODEL = "model"
"""In an attempt's directory: what was exported, whole or not there."""
CONFIG = "config.json"
"""In what was exported: the file by which transformers knows it."""


def is_gone(export: Export) -> bool | None:
    """Whether it was made and somebody has removed it since; None while the store does not say."""
    if export.directory is None:
        return False
    try:
        return not artifacts.exists(artifacts.join(export.directory, CONFIG))
    except artifacts.Away:
        return None


def look(reading: Callable[[], Session], checkpoint_id: int) -> bool | None:
    """As `is_gone`, of the export of a checkpoint, if it has one: for whoever is about to write and is not to wait for the store then."""
    with reading() as session:
        found = find(session, checkpoints.get(session, checkpoint_id))
    return is_gone(found) if found else False


def export(session: Session, checkpoint: Checkpoint, actor: str, is_gone: Callable[[Export], bool | None] = is_gone) -> Export:
    """Queue the export of a checkpoint, unless it is under way or there. One that failed, was stopped or is gone is made again.

    The caller commits, then rings. Raises Invalid for a checkpoint that cannot answer, BadInput for a file that cannot be used.
    """
    runs.hold(session, session.get_one(Run, checkpoint.run_id))
    stage = session.get_one(StageRun, checkpoint.stage_id, with_for_update=True)  # whoever else asks at this moment finds this one's
    checkpoints.lock(session, checkpoint)
    _check(checkpoint, stage)
    wanted = find(session, checkpoint) or Export(
        run_id=checkpoint.run_id, stage_id=stage.id, step=checkpoint.step, sha256=checkpoint.sha256, path=checkpoint.path,
        created_at=db.now(session), created_by=actor,
    )  # fmt: skip
    lasting = kept.lasting(session, checkpoints.hold(session, checkpoint))
    wanted.checkpoint_id, wanted.path = lasting.id, lasting.path
    session.add(wanted)
    session.flush()
    before = _jobs(session, wanted)
    if before and before[0].status in (JobStatus.failed, JobStatus.stopped):
        jobs.retry(session, before[0], actor)
    elif not before or is_gone(wanted):
        _enqueue(session, wanted, stage, actor)
    return wanted


def _check(checkpoint: Checkpoint, stage: StageRun) -> None:
    if stage.stage is Stage.vision:
        raise Invalid(
            _("checkpoint {id} is of stage vision, which learns no answers; export one of stage resampler or finetune.").format(id=checkpoint.id)
        )
    if artifacts.is_remote(checkpoint.path):
        if checkpoint.stored_at is None:
            raise BadInput(_("{path}: not in the store yet; only the host that trains it has it.").format(path=checkpoint.path))
        return
    note = rundir.read_note(Path(checkpoint.path))
    if (size := Path(checkpoint.path).stat().st_size) != note.size:
        raise BadInput(_("{path}: damaged: {size:,} bytes instead of {noted:,}.").format(path=checkpoint.path, size=size, noted=note.size))


def _enqueue(session: Session, wanted: Export, stage: StageRun, actor: str) -> None:
    """On as many devices as its run, for which there is a worker."""
    run = session.get_one(Run, wanted.run_id)
    job = Job(
        kind=JobKind.export, run_id=run.id, export_id=wanted.id, devices=run.config["devices"], priority=run.priority,
        directory=_directory(session, run, f"{stage.stage}-{wanted.step}"),
    )  # fmt: skip
    wanted.directory = None
    jobs.enqueue(session, job, actor, "submitted")


def _directory(session: Session, run: Run, name: str) -> str:
    """Below the run's, where nobody else writes, and no other job's: two attempts of a stage may both have saved at this step."""
    taken = set(session.exec(select(Job.directory).where(Job.run_id == run.id)))
    first = artifacts.join(run.directory, "exports", name)
    return next(each for each in chain([first], (f"{first}.{number}" for number in count(2))) if each not in taken)


def find(session: Session, checkpoint: Checkpoint) -> Export | None:
    stage_id, step, sha256 = kept.file_of(checkpoint)
    return session.exec(select(Export).where(Export.stage_id == stage_id, Export.step == step, Export.sha256 == sha256)).first()


def get(session: Session, checkpoint: Checkpoint) -> Export:
    """Raises NotFound for a checkpoint that nobody has asked to export."""
    if (found := find(session, checkpoint)) is None:
        raise NotFound(_("Checkpoint {id} has not been exported.").format(id=checkpoint.id))
    return found


def job_of(session: Session, export: Export) -> Job:
    """Its newest job. Raises NotFound for an export that was deleted since it was read: no other has none."""
    if not (found := _jobs(session, export)):
        raise NotFound(_("There is no export {id} any more.").format(id=export.id))
    return found[0]


def _jobs(session: Session, export: Export) -> Sequence[Job]:
    """The newest first; none for a moment, while it is asked for."""
    return session.exec(select(Job).where(Job.export_id == export.id).order_by(col(Job.id).desc())).all()


def stop(session: Session, export: Export, actor: str) -> None:
    """Raises Conflict for one that has ended."""
    job = job_of(session, export)
    if job.status in ENDED:
        raise Conflict(_("The export of this checkpoint has ended; there is nothing to stop."))
    jobs.request_stop(session, job, actor)


def check_made(session: Session, job: Job, files: Path) -> None:
    """Look at what a successful attempt has left in its directory on this host.

    Raises BadInput if there is no export, or if it is not of the checkpoint that was asked for.
    """
    export, directory = session.get_one(Export, job.export_id), files / MODEL
    if not (directory / CONFIG).is_file():
        raise BadInput(_("The export left no {directory}.").format(directory=directory))
    if _sha256_now(session, export.path) not in (None, export.sha256):
        raise BadInput(_("{path}: was written over after this export was asked for. Export it again.").format(path=export.path))


def _sha256_now(session: Session, path: str) -> str | None:
    """What a checkpoint's file holds by now; None once a trainer at work has removed it. Of one in a store its row knows."""
    if artifacts.is_remote(path):
        row = checkpoints.at(session, path)
        return row.sha256 if row else None
    return rundir.read_note(Path(path)).sha256 if Path(path).is_file() else None


def finish(session: Session, job: Job, attempt: str) -> None:
    """Keep where an export lies that succeeded, in the attempt's directory of this name."""
    export = session.get_one(Export, job.export_id)
    export.directory = artifacts.join(attempt, MODEL)
    session.add(export)
