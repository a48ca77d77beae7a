"""Rows of checkpoint files. The file and its note are the truth about what a checkpoint holds; a row says where to find it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import or_
from sqlmodel import Session, col, select

from app import artifacts, db
from app.checkpoints import kept
from app.errors import Conflict, NotFound
from app.i18n import _
from app.models import ENDED, Attempt, Checkpoint, Job
from panollava import rundir
from panollava.errors import BadInput
from panollava.events import CheckpointSaved

CONTINUED = ("last", "step", "epoch")
"""Kinds that hold what a trainer needs to continue. `best` is a second name of an epoch, `final` has no optimizer."""
STORED = or_(col(Checkpoint.stored_at).is_not(None), ~col(Checkpoint.path).startswith(artifacts.S3))
"""The file is where its row says, and not still on the way to the store."""
NOTED = {"kind", "step", "epoch", "metrics", "sha256", "size"}
"""What a row, an event and a note say alike."""


def get(session: Session, checkpoint_id: int) -> Checkpoint:
    """Raises NotFound."""
    if (checkpoint := session.get(Checkpoint, checkpoint_id)) is None:
        raise NotFound(_("There is no checkpoint {id}.").format(id=checkpoint_id))
    return checkpoint


def at(session: Session, path: str | Path) -> Checkpoint | None:
    """The row of a file, if it is one of ours."""
    return session.exec(select(Checkpoint).where(Checkpoint.path == str(path))).first()


def record(session: Session, job: Job, attempt: Attempt, saved: CheckpointSaved, *, is_gone: bool = False) -> Checkpoint:
    """The row of a file that a trainer has just written; the same row again when it wrote over it. Raises BadInput for a path outside."""
    path, directory = artifacts.resolve(attempt.directory, saved.path), attempt.directory
    if not artifacts.is_below(path, directory):
        raise BadInput(_("{path}: a checkpoint outside of its attempt's directory {directory}.").format(path=saved.path, directory=directory))
    now = db.now(session)
    unstored = {"stored_at": None, "removed_at": now if is_gone else None}
    noted: dict[str, Any] = {**saved.model_dump(include=NOTED), "val_loss": _val_loss(saved), "created_at": now, **unstored}
    checkpoint = at(session, path)
    if checkpoint:
        noted["pinned"] = checkpoint.pinned and checkpoint.sha256 == saved.sha256  # what was pinned is a file, not a name
        checkpoint.sqlmodel_update(noted)
    else:
        owner: dict[str, Any] = {"run_id": job.run_id, "stage_id": job.stage_id, "job_id": job.id, "attempt": attempt.number}
        checkpoint = Checkpoint(path=path, **owner, **noted)
    session.add(checkpoint)
    session.flush()
    return checkpoint


def lock(session: Session, checkpoint: Checkpoint) -> Sequence[Checkpoint]:
    """The rows of its file, under all its names, for whoever says what it is wanted for or asks that before it is removed. Raises NotFound."""
    same = {Checkpoint.stage_id: checkpoint.stage_id, Checkpoint.step: checkpoint.step, Checkpoint.sha256: checkpoint.sha256}
    names = locked(session, *(column == value for column, value in same.items()))
    if checkpoint not in names:
        raise NotFound(_("There is no checkpoint {id} any more.").format(id=checkpoint.id))
    return names


def locked(session: Session, *which: bool) -> Sequence[Checkpoint]:
    """These rows as they are now, until this transaction ends. Everybody locks several in one order."""
    query = select(Checkpoint).where(*which).order_by(col(Checkpoint.id)).with_for_update()
    return session.exec(query.execution_options(populate_existing=True)).all()


def hold(session: Session, checkpoint: Checkpoint) -> Checkpoint:
    """Let its file stay although its stage is at work and makes room for newer ones, because somebody wants to use it.

    Its row: of a stage at work the one whose name the trainer gives to no other file. The caller's own row says what it is wanted for
    (`stored.HELD`). Raises Conflict or NotFound when it has gone.
    """
    lock(session, checkpoint)  # whoever lets it go waits, then sees what it is wanted for
    if session.get_one(Job, checkpoint.job_id).status in ENDED:
        return checkpoint
    lasting = kept.lasting(session, checkpoint)
    if lasting.removed_at and not lasting.stored_at:
        raise Conflict(_("{path} makes room for newer ones at this moment. Choose one of those.").format(path=lasting.path))
    if not artifacts.is_remote(lasting.path):
        try:
            rundir.keep(Path(lasting.path))
        except OSError as error:
            raise Conflict(_("{path} cannot be kept. {error}").format(path=lasting.path, error=error)) from None
    return lasting


def _val_loss(saved: CheckpointSaved) -> float | None:
    loss = saved.metrics.get("val_loss")
    return loss if loss is not None and math.isfinite(loss) else None


def best(session: Session, job: Job, attempt: Attempt, name: str | None) -> Checkpoint:
    """The row of what a stage calls its best: a whole file of this job, of this attempt or of one it continued. Raises BadInput otherwise."""
    if name is None:
        raise BadInput(_("The stage named no best checkpoint."))
    path = artifacts.resolve(attempt.directory, name)
    if not artifacts.is_below(path, job.directory):
        raise BadInput(_("{path}: the best checkpoint lies outside of {directory}.").format(path=path, directory=job.directory))
    known = at(session, path)
    if artifacts.is_remote(path):
        if known is None or known.stored_at is None:
            raise BadInput(_("{path}: the best checkpoint is not in the store.").format(path=path))
        return known
    note = rundir.read_note(Path(path))
    if note.size != Path(path).stat().st_size:
        raise BadInput(_("{path}: the best checkpoint is torn: its note says {size} bytes.").format(path=path, size=note.size))
    if known:
        return known
    return record(session, job, attempt, CheckpointSaved(path=name, **note.model_dump(include=NOTED)))


def last_good(session: Session, job: Job) -> Checkpoint | None:
    """Where the next attempt of this job can continue: the furthest whole checkpoint since the stage was last begun. None: from the start."""
    mine = (Checkpoint.job_id == job.id, Checkpoint.attempt > job.begun_after, col(Checkpoint.kind).in_(CONTINUED), STORED)
    newest_first = select(Checkpoint).where(*mine).order_by(col(Checkpoint.step).desc(), col(Checkpoint.id).desc())
    return next((each for each in session.exec(newest_first) if is_whole(each.path)), None)


def is_whole(name: str) -> bool:
    """Whether the file is there, as long as its note says; of one in a store its row knows. The checksum is the trainer's to check."""
    if artifacts.is_remote(name):
        return True
    path = Path(name)
    try:
        return rundir.read_note(path).size == path.stat().st_size
    except (BadInput, FileNotFoundError):
        return False
