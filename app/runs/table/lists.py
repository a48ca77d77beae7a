"""Lists of runs: searched, filtered by status, sorted, page by page. Reads only.

A run has no status of its own: `RunState.current` reads it off the newest jobs of its stages. Here is the same in SQL, so that ten
thousand runs can be filtered without reading them; a test holds the two together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, String, Subquery, and_, case, literal, or_, type_coerce
from sqlalchemy.orm import Mapped, aliased
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from app import db, listing
from app.jobs.states import PATIENCE
from app.listing import Order
from app.models import ACTIVE, ENDED, Checkpoint, Job, JobStatus, Run, StageRun, Transition


class Shown(StrEnum):
    """What a list calls a run: its status, but `lost` where somebody should be at work and has been silent for 30 s."""

    queued = "queued"
    waiting = "waiting"
    starting = "starting"
    running = "running"
    stopping = "stopping"
    succeeded = "succeeded"
    failed = "failed"
    stopped = "stopped"
    lost = "lost"
    gated = "gated"


class Sort(StrEnum):
    """What a list is sorted by; a minus is downwards. Runs without a val_loss come last."""

    newest = "-created"
    oldest = "created"
    name = "name"
    name_down = "-name"
    lowest = "val_loss"
    highest = "-val_loss"


@dataclass(frozen=True)
class Wanted:
    """Which runs a list holds."""

    q: str = ""
    """Part of the name, whatever the case of its letters, or the id."""
    status: Shown | None = None
    archived: bool = False
    """Those that were archived, instead of those that were not."""


EVERYTHING = Wanted()


def page(session: Session, wanted: Wanted = EVERYTHING, sort: Sort = Sort.newest, cursor: int | None = None, limit: int = 50) -> Sequence[Run]:
    """The runs behind the one whose id is `cursor`. Raises Invalid for a cursor that no page gave."""
    return listing.page(session, _select(session, wanted), Run, ORDERS[sort], cursor, limit)


def newest(session: Session) -> int:
    """The highest id of a run; 0 while there is none."""
    return session.exec(select(func.max(Run.id))).one() or 0


def newer(session: Session, wanted: Wanted, than: int) -> int:
    """How many runs of a list were launched after run `than`."""
    query = _select(session, wanted).where(col(Run.id) > than)
    return session.exec(select(func.count()).select_from(query.subquery())).one()


def tally(session: Session, q: str = "", archived: bool = False) -> dict[Shown, int]:
    """How many runs of a search are shown with each status."""
    shown = _shown(_standings(_matches(q), _is_archived(archived)), db.now(session)).label("shown")
    counts = {Shown(status): count for status, count in session.exec(select(shown, func.count()).group_by("shown"))}
    return {each: counts.get(each, 0) for each in Shown}


def standing(condition: ColumnElement[bool]) -> SelectOfScalar[Job]:
    """The jobs that runs stand at, among those that meet a condition. A run that waits or is gated stands at none; an archived one is left out."""
    stood = _standings(col(Run.id).in_(select(Job.run_id).where(condition)), _is_archived(False), more=[condition.label("meets")])
    return select(Job).join(stood, stood.c.job_id == col(Job.id)).where(stood.c.meets, stood.c.gated_because.is_(None))


def gated(session: Session) -> Sequence[tuple[StageRun, Run]]:
    """The stages at whose closed gates runs stand, the newest run first; archived runs are left out."""
    kept_back = col(Run.id).in_(select(StageRun.run_id).where(col(StageRun.gated_because).is_not(None)))
    stood = _standings(kept_back, _is_archived(False), more=[col(StageRun.id).label("stage_id")])
    query = select(StageRun, Run).join(stood, stood.c.stage_id == col(StageRun.id)).join(Run, col(Run.id) == StageRun.run_id)
    return session.exec(query.where(stood.c.gated_because.is_not(None)).order_by(col(Run.id).desc())).all()


def ended(session: Session, limit: int) -> list[int]:
    """Ids of the runs that have ended, the latest first."""
    stood = _standings(_is_archived(False))
    now_so = and_(stood.c.job_id == Transition.job_id, stood.c.status == Transition.new, stood.c.attempt == Transition.attempt)
    query = select(stood.c.run_id).join(Transition, now_so).where(stood.c.status.in_(ENDED), stood.c.gated_because.is_(None)).group_by(stood.c.run_id)
    return list(session.exec(query.order_by(func.max(Transition.id).desc()).limit(limit)))


def _select(session: Session, wanted: Wanted) -> SelectOfScalar[Run]:
    if wanted.status is None:
        return select(Run).where(_matches(wanted.q), _is_archived(wanted.archived))
    stood = _standings(_matches(wanted.q), _is_archived(wanted.archived))
    return select(Run).join(stood, stood.c.run_id == col(Run.id)).where(_shown(stood, db.now(session)) == wanted.status.value)


def _is_archived(archived: bool) -> ColumnElement[bool]:
    return col(Run.archived_at).is_not(None) if archived else col(Run.archived_at).is_(None)


def _matches(q: str) -> ColumnElement[bool]:
    text = q.strip()
    named = func.lower(Run.name).contains(text.lower(), autoescape=True)
    number = text.removeprefix("#")
    return or_(named, col(Run.id) == int(number)) if number.isdecimal() and len(number) < 10 else named


# What a run stands at: the same as RunState.current, in SQL


def _standings(*of: ColumnElement[bool], more: Sequence[ColumnElement[Any]] = ()) -> Subquery:
    """Of each run the stage that its status comes from, with the newest job of that stage; the job's columns are NULL where it has none.

    Joins by key and one sort, no query inside a row. What chooses among runs goes in here (`of`), and what is joined to it has no condition of its
    own: then a database that knows nothing of its tables, or something that is long past, still has no slow plan to choose.
    """
    newer = aliased(Job)
    is_done = and_(func.coalesce(col(Job.status) == JobStatus.succeeded, False), col(StageRun.gated_because).is_(None))
    first_open_or_last = [case((is_done, 1), else_=0), case((is_done, -col(StageRun.position)), else_=col(StageRun.position))]
    place = func.row_number().over(partition_by=col(StageRun.run_id), order_by=first_open_or_last).label("place")
    query = (
        select(  # type: ignore[call-overload]
            col(StageRun.run_id), StageRun.gated_because, col(Job.id).label("job_id"), Job.status, Job.attempt, Job.heartbeat_at, place, *more
        )
        .join_from(Run, StageRun, col(StageRun.run_id) == Run.id)
        .outerjoin(Job, col(Job.stage_id) == StageRun.id)
        .outerjoin(newer, and_(col(newer.stage_id) == Job.stage_id, col(newer.id) > Job.id))
        .where(*of, col(newer.id).is_(None))
    )
    placed = query.subquery("placed")
    return select(placed).where(placed.c.place == 1).subquery("standings")


def _is_silent(heartbeat_at: ColumnElement[Any] | Mapped[Any], now: datetime) -> ColumnElement[bool]:
    """As `app.jobs.states.is_lost`."""
    return func.coalesce(heartbeat_at < now - PATIENCE, False)


def _shown(stood: Subquery, now: datetime) -> ColumnElement[str]:
    silent = and_(stood.c.status.in_(ACTIVE), _is_silent(stood.c.heartbeat_at, now))
    gated, waiting, lost = (literal(each.value) for each in (Shown.gated, Shown.waiting, Shown.lost))
    return case(
        (stood.c.gated_because.is_not(None), gated), (stood.c.job_id.is_(None), waiting), (silent, lost), else_=type_coerce(stood.c.status, String)
    )


def is_shown(status: Shown, now: datetime) -> ColumnElement[bool]:
    """Whether a job gives what it works for this status in a list."""
    if status is Shown.lost:
        return or_(col(Job.status) == JobStatus.lost, and_(col(Job.status).in_(ACTIVE), _is_silent(col(Job.heartbeat_at), now)))
    same = col(Job.status) == JobStatus(status)
    return and_(same, ~_is_silent(col(Job.heartbeat_at), now)) if JobStatus(status) in ACTIVE else same


def _lowest() -> ColumnElement[Any]:
    """The lowest val_loss of the furthest stage that has one; NULL without."""
    stage = aliased(StageRun)
    begun_after = select(Job.begun_after).where(Job.id == Checkpoint.job_id).correlate(Checkpoint).scalar_subquery()
    counts = Checkpoint.attempt > begun_after  # of the training that counts, not of one before it
    saved = select(Checkpoint.id).where(Checkpoint.stage_id == stage.id, col(Checkpoint.val_loss).is_not(None), counts).exists()
    furthest = select(stage.id).where(stage.run_id == Run.id, saved).order_by(col(stage.position).desc()).limit(1)
    return (
        select(func.min(Checkpoint.val_loss))
        .where(Checkpoint.stage_id == furthest.correlate(Run).scalar_subquery(), counts)
        .correlate(Run)
        .scalar_subquery()
    )


ORDERS = {
    Sort.newest: Order(),
    Sort.oldest: Order(descending=False),
    Sort.name: Order(func.lower(Run.name), descending=False),
    Sort.name_down: Order(func.lower(Run.name)),
    Sort.lowest: Order(func.coalesce(_lowest(), math.inf), descending=False),
    Sort.highest: Order(func.coalesce(_lowest(), -math.inf)),
}
