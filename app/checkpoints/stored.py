"""Rows of checkpoints on their way to the object store and from it: what still waits, what has arrived, what may go. Asks no store."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, or_
from sqlmodel import Session, col, select, update

from app import artifacts, db
from app.checkpoints import kept
from app.checkpoints import service as checkpoints
from app.checkpoints.lists import SECOND_NAMES
from app.models import ACTIVE, ENDED, Attempt, Checkpoint, Evaluation, Export, Job, JobStatus, StageRun
from panollava.events import CheckpointRemoved

_NEWEST = select(Job.id).where(Job.id == Checkpoint.job_id, Job.attempt == Checkpoint.attempt).exists()
"""Its attempt owns the job still."""

_OPEN = col(Job.status).not_in(ENDED)
HELD = or_(
    col(Checkpoint.pinned),
    select(StageRun.id).where(StageRun.init_checkpoint == Checkpoint.path).exists(),
    select(Job.id).where(Job.resume_from == Checkpoint.path, _OPEN).exists(),
    select(Evaluation.id).join(Job, col(Job.evaluation_id) == Evaluation.id).where(Evaluation.checkpoint_id == Checkpoint.id, _OPEN).exists(),
    select(Export.id).where(Export.checkpoint_id == Checkpoint.id).exists(),
)
"""Pinned, the start of a stage, needed by a job or exported: it stays, whatever its trainer removes. See `checkpoints.hold`."""


def forget(session: Session, attempt: Attempt, removed: CheckpointRemoved) -> None:
    """The trainer has removed a file of its attempt; the row goes with it, and an evaluation of it keeps the path.

    One that the store has is kept until the store has a later one: that may still be on its way. One that somebody wants before the store has it
    stays: its worker has the bytes.
    """
    path = artifacts.resolve(attempt.directory, removed.path)
    for checkpoint in checkpoints.locked(session, Checkpoint.path == str(path)):  # before it is asked who wants it: they lock it too
        if checkpoint.stored_at:
            checkpoint.removed_at = db.now(session)
            session.add(checkpoint)
        elif not (artifacts.is_remote(checkpoint.path) and _is_held(session, checkpoint)):
            session.delete(checkpoint)
        session.flush()


def _is_held(session: Session, checkpoint: Checkpoint) -> bool:
    return session.exec(select(Checkpoint.id).where(Checkpoint.id == checkpoint.id, HELD)).first() is not None


def waiting(session: Session, job_id: int, attempt: int) -> Sequence[Checkpoint]:
    """Checkpoints of an attempt that the store has not got, the furthest first; a second name after the file's first, whose copy it can be."""
    mine = (Checkpoint.job_id == job_id, Checkpoint.attempt == attempt, col(Checkpoint.stored_at).is_(None), col(Checkpoint.removed_at).is_(None))
    order = (col(Checkpoint.step).desc(), col(Checkpoint.kind).in_(SECOND_NAMES), col(Checkpoint.id))
    return session.exec(select(Checkpoint).where(*mine).order_by(*order)).all()


def twin(session: Session, checkpoint: Checkpoint) -> str | None:
    """Where the store has the same bytes under the first name of a file of this job."""
    same = (Checkpoint.job_id == checkpoint.job_id, Checkpoint.sha256 == checkpoint.sha256, Checkpoint.id != checkpoint.id)
    first = (col(Checkpoint.kind).not_in(SECOND_NAMES), col(Checkpoint.stored_at).is_not(None))
    return session.exec(select(Checkpoint.path).where(*same, *first).limit(1)).first()


def mark(session: Session, checkpoint: Checkpoint) -> bool:
    """The store has it now. False when the row is gone, speaks of other contents by now, or is of an attempt that is over for a newer one."""
    return session.exec(update(Checkpoint).where(*_same(checkpoint), _NEWEST).values(stored_at=db.now(session))).rowcount == 1


def release(session: Session, checkpoint: Checkpoint) -> bool:
    """The store may let it go: it counts no more. False as for `mark`, and while somebody wants it."""
    if session.get(Checkpoint, checkpoint.id, with_for_update=True) is None:  # before it is asked who wants it: they lock it too
        return False
    return session.exec(update(Checkpoint).where(*_same(checkpoint), _NEWEST, ~HELD).values(stored_at=None)).rowcount == 1


def miss(session: Session, checkpoint: Checkpoint) -> None:
    """The store has it no more, or not these contents."""
    session.exec(update(Checkpoint).where(*_same(checkpoint)).values(stored_at=None))


def _same(checkpoint: Checkpoint) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return col(Checkpoint.id) == checkpoint.id, col(Checkpoint.sha256) == checkpoint.sha256


def superseded(session: Session, job_id: int, attempt: int) -> Sequence[Checkpoint]:
    """Checkpoints that the trainer has removed and nobody wants, once the store has a later one to go on from."""
    mine = (Checkpoint.job_id == job_id, Checkpoint.attempt == attempt)
    rows = session.exec(select(Checkpoint).where(*mine, col(Checkpoint.removed_at).is_not(None), ~HELD)).all()
    usable = (col(Checkpoint.kind).in_(checkpoints.CONTINUED), col(Checkpoint.stored_at).is_not(None), col(Checkpoint.removed_at).is_(None))
    furthest = session.exec(select(Checkpoint.step).where(*mine, *usable).order_by(col(Checkpoint.step).desc()).limit(1)).first()
    return [row for row in rows if furthest is not None and row.step < furthest]


def drop(session: Session, checkpoint: Checkpoint) -> None:
    """The store has let it go."""
    if row := session.get(Checkpoint, checkpoint.id):
        session.delete(row)


def to_resume(session: Session, path: str) -> list[Checkpoint]:
    """What a trainer needs that goes on from a checkpoint: that one first, then the best of its attempt, all under every name they have."""
    if (resumed := checkpoints.at(session, path)) is None:
        return []
    mine = (Checkpoint.job_id == resumed.job_id, Checkpoint.attempt == resumed.attempt)
    best = session.exec(select(Checkpoint).where(*mine, Checkpoint.kind == "best")).all()
    files = kept.names_of(session, [resumed, *best])
    names = [name for names in files.values() for name in names if name.attempt == resumed.attempt and name.stored_at]
    return [resumed, *(name for name in names if name.id != resumed.id)]


def is_coming(session: Session, checkpoint: Checkpoint) -> bool:
    """Whether somebody still works on the attempt that wrote it, and so on its upload."""
    job = session.get_one(Job, checkpoint.job_id)
    return job.attempt == checkpoint.attempt and job.status in ACTIVE


def choose_anew(session: Session, job_id: int, attempt: int, status: Sequence[JobStatus]) -> str | None:
    """Where an attempt goes on, looked at again; while the job is in one of these states."""
    checkpoint = checkpoints.last_good(session, session.get_one(Job, job_id))
    path = checkpoint.path if checkpoint else None
    mine = (col(Job.id) == job_id, col(Job.attempt) == attempt, col(Job.status).in_(status))
    session.exec(update(Job).where(*mine).values(resume_from=path))
    return path


def left_behind(session: Session) -> Sequence[tuple[int, int]]:
    """Attempts (job id, number) that nobody works on and no other one has followed, with checkpoints that the store has not got."""
    unstored = (~checkpoints.STORED, col(Checkpoint.removed_at).is_(None))
    over = (Job.attempt == Checkpoint.attempt, col(Job.status).not_in(ACTIVE))
    query = select(Checkpoint.job_id, Checkpoint.attempt).join(Job, col(Job.id) == Checkpoint.job_id).where(*unstored, *over).distinct()
    return session.exec(query).all()
