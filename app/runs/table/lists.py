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

from sqlalchemy import ColumnElement, and_, case, or_
from sqlalchemy.orm import aliased
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
UNFINISHED = set(JobStatus) - {JobStatus.succeeded}


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
    now = db.now(session)
    found = select(Run.id).where(_matches(q), _is_archived(archived))
    begun = select(_shown(now).label("shown"), func.count()).join(StageRun, col(StageRun.id) == col(Job.stage_id)).group_by("shown")
    begun = begun.where(_stands(), col(Job.status).in_(UNFINISHED))
    waiting = select(func.count()).select_from(StageRun).where(_has_no_job(), _is_current())
    gated = select(func.count()).select_from(StageRun).where(_is_gated(StageRun), _is_current())
    begun, waiting, gated = (
        begun.where(col(Job.run_id).in_(found)), waiting.where(col(StageRun.run_id).in_(found)), gated.where(col(StageRun.run_id).in_(found)),
    )  # fmt: skip
    counts = {Shown(shown): count for shown, count in session.exec(begun)}
    counts |= {Shown.waiting: session.exec(waiting).one(), Shown.gated: session.exec(gated).one()}
    total = session.exec(select(func.count()).select_from(found.subquery())).one()
    return {each: counts.get(each, 0) for each in Shown} | {Shown.succeeded: total - sum(counts.values())}


def standing(condition: ColumnElement[bool]) -> SelectOfScalar[Job]:
    """The jobs that runs stand at, among those that meet a condition. A run that waits stands at none; an archived one is left out."""
    return _standing(and_(condition, _is_listed()))


def _standing(condition: ColumnElement[bool]) -> SelectOfScalar[Job]:
    return select(Job).join(StageRun, col(StageRun.id) == col(Job.stage_id)).where(condition, _stands())


def _is_listed() -> ColumnElement[bool]:
    """Whether the run of a stage is not archived."""
    return col(StageRun.run_id).not_in(select(Run.id).where(_is_archived(True)))


def ended(session: Session, limit: int) -> list[int]:
    """Ids of the runs that have ended, the latest first."""
    is_last = ~select(_later.id).where(_later.run_id == StageRun.run_id, _later.position > StageRun.position).exists()
    now_so = (Job.id == Transition.job_id, Job.status == Transition.new, Job.attempt == Transition.attempt)
    at_end = or_(col(Job.status) != JobStatus.succeeded, is_last)
    ends = (
        select(Job.id)
        .join(StageRun, col(StageRun.id) == col(Job.stage_id))
        .where(*now_so, _stands(), at_end, _is_listed())
        .correlate(Transition)
        .exists()
    )
    moves = select(Transition.job_id).where(col(Transition.new).in_(ENDED), ends).order_by(col(Transition.id).desc()).limit(limit)
    jobs = session.exec(moves).all()
    runs = dict(session.exec(select(Job.id, Job.run_id).where(col(Job.id).in_(jobs))).all())
    return list(dict.fromkeys(run for job in jobs if (run := runs[job]) is not None))


def _select(session: Session, wanted: Wanted) -> SelectOfScalar[Run]:
    query = select(Run).where(_matches(wanted.q), _is_archived(wanted.archived))
    match wanted.status:
        case None:
            return query
        case Shown.succeeded:
            return query.where(~select(_stage.id).where(_stage.run_id == Run.id, ~_has_succeeded(_stage)).exists())
        case Shown.waiting:
            return query.where(col(Run.id).in_(select(StageRun.run_id).where(_has_no_job(), _is_current())))
        case Shown.gated:
            return query.where(col(Run.id).in_(select(StageRun.run_id).where(_is_gated(StageRun), _is_current())))
        case status:
            return query.where(col(Run.id).in_(_standing(is_shown(status, db.now(session))).with_only_columns(col(Job.run_id))))


def _is_archived(archived: bool) -> ColumnElement[bool]:
    return col(Run.archived_at).is_not(None) if archived else col(Run.archived_at).is_(None)


def _matches(q: str) -> ColumnElement[bool]:
    text = q.strip()
    named = func.lower(Run.name).contains(text.lower(), autoescape=True)
    number = text.removeprefix("#")
    return or_(named, col(Run.id) == int(number)) if number.isdecimal() and len(number) < 10 else named


# What a run stands at: the same as RunState.current, in SQL

_later, _before, _stage = aliased(StageRun), aliased(StageRun), aliased(StageRun)


def _stands() -> ColumnElement[bool]:
    """Whether a job of a stage is the one that its run's status comes from, unless it has succeeded and another stage follows."""
    return and_(_is_newest(Job), ~_is_gated(StageRun), _is_current())


def _is_gated(stage: type[StageRun]) -> ColumnElement[bool]:
    return col(stage.gated_because).is_not(None)


def _is_newest(job: type[Job]) -> ColumnElement[bool]:
    newer = aliased(Job)
    return ~select(newer.id).where(newer.stage_id == job.stage_id, newer.id > job.id).exists()


def _is_current() -> ColumnElement[bool]:
    """Whether every stage before this one has succeeded."""
    earlier = (_before.run_id == StageRun.run_id, _before.position < StageRun.position)
    return ~select(_before.id).where(*earlier, ~_has_succeeded(_before)).exists()


def _has_succeeded(stage: type[StageRun]) -> ColumnElement[bool]:
    job = aliased(Job)
    done = select(job.id).where(job.stage_id == stage.id, job.status == JobStatus.succeeded, _is_newest(job)).exists()
    return and_(done, ~_is_gated(stage))


def _has_no_job() -> ColumnElement[bool]:
    return and_(~select(Job.id).where(Job.stage_id == StageRun.id).exists(), ~_is_gated(StageRun))


def _is_silent(now: datetime) -> ColumnElement[bool]:
    """As `app.jobs.states.is_lost`."""
    return func.coalesce(col(Job.heartbeat_at) < now - PATIENCE, False)


def _shown(now: datetime) -> ColumnElement[Any]:
    silent = and_(col(Job.status).in_(ACTIVE), _is_silent(now))
    return case((silent, Shown.lost), else_=col(Job.status))


def is_shown(status: Shown, now: datetime) -> ColumnElement[bool]:
    """Whether a job gives what it works for this status in a list."""
    if status is Shown.lost:
        return or_(col(Job.status) == JobStatus.lost, and_(col(Job.status).in_(ACTIVE), _is_silent(now)))
    same = col(Job.status) == JobStatus(status)
    return and_(same, ~_is_silent(now)) if JobStatus(status) in ACTIVE else same


def _lowest() -> ColumnElement[Any]:
    """The lowest val_loss of the furthest stage that has one; NULL without."""
    begun_after = select(Job.begun_after).where(Job.id == Checkpoint.job_id).correlate(Checkpoint).scalar_subquery()
    counts = Checkpoint.attempt > begun_after  # of the training that counts, not of one before it
    saved = select(Checkpoint.id).where(Checkpoint.stage_id == _stage.id, col(Checkpoint.val_loss).is_not(None), counts).exists()
    furthest = select(_stage.id).where(_stage.run_id == Run.id, saved).order_by(col(_stage.position).desc()).limit(1)
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
