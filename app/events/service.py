"""The events that streams tell, read in the order in which they came true. They are written by `db.emit`."""

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import Session, col, delete, func, select

from app import db
from app.models import Event, Job, StageRun

KEPT = timedelta(hours=6)
"""How long a browser may be away and still be told all it missed; after that it reads the page anew."""


def after(session: Session, last_id: int, run_id: int | None = None, limit: int = 500) -> Sequence[Event]:
    """Events newer than `last_id`, oldest first, of one run or of all."""
    query = select(Event).where(Event.id > last_id).order_by(col(Event.id)).limit(limit)
    return session.exec(query if run_id is None else query.where(Event.run_id == run_id)).all()


def latest(session: Session) -> int:
    """Id of the newest event; 0 when there is none."""
    return session.exec(select(func.max(Event.id))).one() or 0


def oldest(session: Session) -> int:
    """Id of the oldest event that is kept; 0 when there is none."""
    return session.exec(select(func.min(Event.id))).one() or 0


def prune(session: Session, keep: timedelta = KEPT) -> int:
    """Forget events older than `keep`; how many. The newest stays, so that `latest` never goes back."""
    old = (col(Event.at) < db.now(session) - keep, col(Event.id) < latest(session))
    return session.exec(delete(Event).where(*old)).rowcount


def note(session: Session, job_id: int, attempt: int, level: str, text: str) -> bool:
    """A word of the manager's own about a job, as `panollava.events.Note` is the trainer's. False, with nothing told, if fenced off."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is None or job.attempt != attempt:
        return False
    stage = session.get_one(StageRun, job.stage_id).stage if job.stage_id else None
    db.emit(session, "note", {"job_id": job_id, "attempt": attempt, "stage": stage, "level": level, "text": text}, run_id=job.run_id)
    return True
