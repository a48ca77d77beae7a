"""Exports: checkpoints as directories that transformers loads by itself, below their run's directory.

One for each file, whatever its names. Its status is its newest job's; the worker runs `panollava export`.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session, col, select

from app import db
from app.checkpoints import kept
from app.errors import Conflict, Invalid, NotFound
from app.i18n import _
from app.jobs import service as jobs
from app.models import ENDED, Checkpoint, Export, Job, JobKind, JobStatus, Run, StageRun
from app.paths import free_directory
from panollava import rundir
from panollava.errors import BadInput
from panollava.stages import Stage

MODEL = "model"
"""In an attempt's directory: what was exported, whole or not there."""


def export(session: Session, checkpoint: Checkpoint, actor: str) -> Export:
    """Queue the export of a checkpoint, unless it is under way or there. One that failed, was stopped or is gone is made again.

    The caller commits, then rings. Raises Invalid for a checkpoint that cannot answer, BadInput for a file that cannot be used.
    """
    stage = session.get_one(StageRun, checkpoint.stage_id, with_for_update=True)  # whoever else asks at this moment finds this one's
    _check(checkpoint, stage)
    wanted = find(session, checkpoint) or Export(
        run_id=checkpoint.run_id, stage_id=stage.id, step=checkpoint.step, sha256=checkpoint.sha256, path=checkpoint.path,
        created_at=db.now(session), created_by=actor,
    )  # fmt: skip
    lasting = kept.names_of(session, [checkpoint])[kept.file_of(checkpoint)][0]
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
    note = rundir.read_note(Path(checkpoint.path))
    if stage.stage is Stage.vision:
        raise Invalid(
            _("checkpoint {id} is of stage vision, which learns no answers; export one of stage resampler or finetune.").format(id=checkpoint.id)
        )
    if (size := Path(checkpoint.path).stat().st_size) != note.size:
        raise BadInput(_("{path}: damaged: {size:,} bytes instead of {noted:,}.").format(path=checkpoint.path, size=size, noted=note.size))


def _enqueue(session: Session, wanted: Export, stage: StageRun, actor: str) -> None:
    """On as many devices as its run, for which there is a worker."""
    run = session.get_one(Run, wanted.run_id)
    directory = free_directory(Path(run.directory, "exports", f"{stage.stage}-{wanted.step}"))
    job = Job(
        kind=JobKind.export, run_id=run.id, export_id=wanted.id, devices=run.config["devices"], priority=run.priority, directory=str(directory)
    )  # fmt: skip
    wanted.directory = None
    jobs.enqueue(session, job, actor, "submitted")


def find(session: Session, checkpoint: Checkpoint) -> Export | None:
    stage_id, step, sha256 = kept.file_of(checkpoint)
    return session.exec(select(Export).where(Export.stage_id == stage_id, Export.step == step, Export.sha256 == sha256)).first()


def get(session: Session, checkpoint: Checkpoint) -> Export:
    """Raises NotFound for a checkpoint that nobody has asked to export."""
    if (found := find(session, checkpoint)) is None:
        raise NotFound(_("Checkpoint {id} has not been exported.").format(id=checkpoint.id))
    return found


def job_of(session: Session, export: Export) -> Job:
    """Its newest job."""
    return _jobs(session, export)[0]


def _jobs(session: Session, export: Export) -> Sequence[Job]:
    """The newest first; none for a moment, while it is asked for."""
    return session.exec(select(Job).where(Job.export_id == export.id).order_by(col(Job.id).desc())).all()


def is_gone(export: Export) -> bool:
    """Whether it was made and somebody has removed it since."""
    return export.directory is not None and not Path(export.directory).is_dir()


def stop(session: Session, export: Export, actor: str) -> None:
    """Raises Conflict for one that has ended."""
    job = job_of(session, export)
    if job.status in ENDED:
        raise Conflict(_("The export of this checkpoint has ended; there is nothing to stop."))
    jobs.request_stop(session, job, actor)


def made(session: Session, job: Job, attempt: Path) -> Path:
    """The directory that a successful attempt left. Raises BadInput if there is none, or if it is not of the checkpoint that was asked for."""
    export, directory = session.get_one(Export, job.export_id), attempt / MODEL
    if not (directory / "config.json").is_file():
        raise BadInput(_("The export left no {directory}.").format(directory=directory))
    source = Path(export.path)  # which a trainer at work may have removed by now
    if source.is_file() and rundir.read_note(source).sha256 != export.sha256:
        raise BadInput(_("{path}: was written over after this export was asked for. Export it again.").format(path=export.path))
    return directory


def finish(session: Session, job: Job, directory: Path) -> None:
    """Keep where an export lies that succeeded."""
    export = session.get_one(Export, job.export_id)
    export.directory = str(directory)
    session.add(export)
