"""What of the object store no row names any more, on its way out of it: named in the transaction that gives it up, removed after that by a sweep.

A store that hangs is so waited for in no transaction, and what a killed process had not removed yet is found by the next sweep of anybody.
"""

import logging
from dataclasses import dataclass

from sqlalchemy.orm import sessionmaker
from sqlmodel import Session, col, delete, func, select, update

from app import artifacts, db
from app.models import Discard

AT_ONCE = 1000
"""Names that one sweep looks at; the rest is the next one's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """What has still to be removed."""

    count: int
    size: int
    """Bytes, as far as they are known."""
    problem: str | None
    """Why it is still there, as the last who tried was told."""


def add(session: Session, name: str, run_id: int | None, size: int = 0, *, is_directory: bool = False) -> None:
    """A checkpoint with its note, or all below an address, is to be removed once this is committed. Nobody may write to that name again."""
    session.add(Discard(name=name, is_directory=is_directory, run_id=run_id, size=size, at=db.now(session)))


def sweep(reading: sessionmaker[Session], writing: sessionmaker[Session]) -> None:
    """Remove what is to be removed, until the store does not answer. Any number of processes may do it at once."""
    with reading() as session:
        never_first = (col(Discard.tried_at).is_not(None), col(Discard.tried_at), col(Discard.id))
        waiting = session.exec(select(Discard).order_by(*never_first).limit(AT_ONCE)).all()
    for each in waiting:
        try:
            _remove(each)
        except artifacts.Away as error:
            log.warning("%s stays for now. %s", each.name, error)
            with writing.begin() as session:
                session.exec(update(Discard).where(col(Discard.id) == each.id).values(tried_at=db.now(session), problem=str(error)))
            return
        with writing.begin() as session:
            session.exec(delete(Discard).where(col(Discard.id) == each.id))


def waiting(session: Session, run_id: int | None = None) -> Waiting:
    """Of one run, or of the whole house."""
    mine = () if run_id is None else (Discard.run_id == run_id,)
    count, size = session.exec(select(func.count(), func.coalesce(func.sum(Discard.size), 0)).select_from(Discard).where(*mine)).one()
    told = select(Discard.problem).where(*mine, col(Discard.problem).is_not(None)).order_by(col(Discard.tried_at).desc()).limit(1)
    return Waiting(count, int(size), session.exec(told).first())


def forget(session: Session) -> None:
    """Leave it where it is: a restored database cannot know to whom the names belong by now."""
    session.exec(delete(Discard))


def _remove(discard: Discard) -> None:
    if discard.is_directory:
        artifacts.delete_below(discard.name)
    else:
        artifacts.delete_checkpoint(discard.name)
