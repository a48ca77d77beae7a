"""Paused queues: workers take nothing from one until it is resumed; what is at work goes on. One row of `Switch` each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from app import db, doorbell
from app.i18n import _
from app.jobs import order
from app.models import Job, JobStatus, Switch

EVERYTHING = "all"
"""Stands for all queues, those of workers to come included."""
_PREFIX = "pause:"


@dataclass(frozen=True)
class Pause:
    """Who paused which queue, and why."""

    queue: str
    reason: str
    actor: str
    at: datetime

    def __str__(self) -> str:
        which = _("the queue") if self.queue == EVERYTHING else _("queue {name}").format(name=self.queue)
        text = _("{which} is paused by {actor} since {time}").format(which=which, actor=self.actor, time=f"{self.at:%H:%M UTC}")
        return f"{text}: {self.reason}" if self.reason else text


Pauses = Mapping[str, Pause]
"""By queue."""


def paused(session: Session) -> Pauses:
    return _read(session, select(Switch).where(col(Switch.name).startswith(_PREFIX)))


def of(session: Session, devices: int) -> Pause | None:
    """What keeps workers with so many devices from taking jobs."""
    names = [_PREFIX + each for each in (EVERYTHING, doorbell.queue(devices))]
    return applies(_read(session, select(Switch).where(col(Switch.name).in_(names))), devices)


def applies(pauses: Pauses, devices: int) -> Pause | None:
    return pauses.get(EVERYTHING) or pauses.get(doorbell.queue(devices))


def pause(session: Session, actor: str, queue: str = EVERYTHING, reason: str = "") -> None:
    """Nothing more is claimed once this is committed. A queue that is paused already stays so, by whom and why it was."""
    order.lock(session)
    if session.get(Switch, _PREFIX + queue):
        return
    session.add(Switch(name=_PREFIX + queue, value={"reason": reason}, actor=actor, at=db.now(session)))
    _tell(session, "paused", queue, actor, reason)


def resume(session: Session, actor: str, queue: str = EVERYTHING) -> Sequence[int]:
    """Workers may take jobs again, unless another pause holds them too. For how many devices jobs wait: the caller commits, then rings for each."""
    order.lock(session)
    if switch := session.get(Switch, _PREFIX + queue):
        session.delete(switch)
        _tell(session, "resumed", queue, actor)
    return session.exec(select(Job.devices).where(Job.status == JobStatus.queued).distinct()).all()


def _tell(session: Session, what: str, queue: str, actor: str, reason: str = "") -> None:
    db.emit(session, "queue", {"what": what, "queue": queue, "actor": actor, "reason": reason})


def _read(session: Session, query: SelectOfScalar[Switch]) -> Pauses:
    found = [Pause(each.name.removeprefix(_PREFIX), each.value["reason"], each.actor, each.at) for each in session.exec(query)]
    return {each.queue: each for each in found}
