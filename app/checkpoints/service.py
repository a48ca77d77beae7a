"""Rows of checkpoint files. The file and its note are the truth about what a checkpoint holds; a row says where to find it."""

import math
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app import db
from app.errors import NotFound
from app.i18n import _
from app.models import Attempt, Checkpoint, Job
from panollava import rundir
from panollava.errors import BadInput
from panollava.events import CheckpointRemoved, CheckpointSaved

CONTINUED = ("last", "step", "epoch")
"""Kinds that hold what a trainer needs to continue. `best` is a second name of an epoch, `final` has no optimizer."""
NOTED = {"kind", "step", "epoch", "metrics", "sha256", "size"}
"""What a row, an event and a note say alike."""


def get(session: Session, checkpoint_id: int) -> Checkpoint:
    """Raises NotFound."""
    if (checkpoint := session.get(Checkpoint, checkpoint_id)) is None:
        raise NotFound(_("There is no checkpoint {id}.").format(id=checkpoint_id))
    return checkpoint


def at(session: Session, path: Path) -> Checkpoint | None:
    """The row of a file, if it is one of ours."""
    return session.exec(select(Checkpoint).where(Checkpoint.path == str(path))).first()


def record(session: Session, job: Job, attempt: Attempt, saved: CheckpointSaved) -> Checkpoint:
    """The row of a file that a trainer has just written; the same row again when it wrote over it. Raises BadInput for a path outside."""
    directory = Path(attempt.directory)
    path = (directory / saved.path).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise BadInput(_("{path}: a checkpoint outside of its attempt's directory {directory}.").format(path=saved.path, directory=directory))
    noted: dict[str, Any] = {**saved.model_dump(include=NOTED), "val_loss": _val_loss(saved), "created_at": db.now(session)}
    checkpoint = at(session, path)
    if checkpoint:
        noted["pinned"] = checkpoint.pinned and checkpoint.sha256 == saved.sha256  # what was pinned is a file, not a name
        checkpoint.sqlmodel_update(noted)
    else:
        owner: dict[str, Any] = {"run_id": job.run_id, "stage_id": job.stage_id, "job_id": job.id, "attempt": attempt.number}
        checkpoint = Checkpoint(path=str(path), **owner, **noted)
    session.add(checkpoint)
    session.flush()
    return checkpoint


def forget(session: Session, attempt: Attempt, removed: CheckpointRemoved) -> None:
    """The trainer has removed a file of its attempt; the row goes with it, and an evaluation of it keeps the path."""
    if checkpoint := at(session, Path(attempt.directory, removed.path).resolve()):
        session.delete(checkpoint)
        session.flush()


def _val_loss(saved: CheckpointSaved) -> float | None:
    loss = saved.metrics.get("val_loss")
    return loss if loss is not None and math.isfinite(loss) else None


def best(session: Session, job: Job, attempt: Attempt, name: str | None) -> Checkpoint:
    """The row of what a stage calls its best: a whole file of this job, of this attempt or of one it continued. Raises BadInput otherwise."""
    if name is None:
        raise BadInput(_("The stage named no best checkpoint."))
    path = Path(attempt.directory, name).resolve()
    if not path.is_relative_to(Path(job.directory).resolve()):
        raise BadInput(_("{path}: the best checkpoint lies outside of {directory}.").format(path=path, directory=job.directory))
    note = rundir.read_note(path)
    if note.size != path.stat().st_size:
        raise BadInput(_("{path}: the best checkpoint is torn: its note says {size} bytes.").format(path=path, size=note.size))
    if known := at(session, path):
        return known
    return record(session, job, attempt, CheckpointSaved(path=name, **note.model_dump(include=NOTED)))


def last_good(session: Session, job: Job) -> Checkpoint | None:
    """Where the next attempt of this job can continue: the furthest checkpoint of any attempt whose file is whole. None: from the start."""
    mine = (Checkpoint.job_id == job.id, col(Checkpoint.kind).in_(CONTINUED))
    newest_first = select(Checkpoint).where(*mine).order_by(col(Checkpoint.step).desc(), col(Checkpoint.id).desc())
    return next((each for each in session.exec(newest_first) if is_whole(Path(each.path))), None)


def is_whole(path: Path) -> bool:
    """Whether the file is there, as long as its note says. The checksum is the trainer's to check, when it loads the file."""
    try:
        return rundir.read_note(path).size == path.stat().st_size
    except (BadInput, FileNotFoundError):
        return False
