"""Lists of checkpoints: filtered, sorted, page by page. Reads only.

A trainer's best.ckpt and last.ckpt are second names of files that have rows of their own; a list for people leaves them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from app import listing
from app.listing import Order
from app.models import Checkpoint, StageRun
from panollava.stages import Stage

SECOND_NAMES = ("best", "last")


class Kind(StrEnum):
    """Why a checkpoint was written, or which second name it is."""

    epoch = "epoch"
    step = "step"
    final = "final"
    best = "best"
    last = "last"


class Sort(StrEnum):
    """What a list is sorted by; a minus is downwards. By val_loss it holds only checkpoints that have one."""

    newest = "-created"
    oldest = "created"
    lowest = "val_loss"
    highest = "-val_loss"


ORDERS = {
    Sort.newest: Order(),
    Sort.oldest: Order(descending=False),
    Sort.lowest: Order(col(Checkpoint.val_loss), descending=False),
    Sort.highest: Order(col(Checkpoint.val_loss)),
}


@dataclass(frozen=True)
class Wanted:
    """Which checkpoints a list holds."""

    run: int | None = None
    stage: Stage | None = None
    kind: Kind | None = None
    once: bool = False
    """One row for each file, unless a kind is asked for."""


EVERYTHING = Wanted()


def page(session: Session, wanted: Wanted = EVERYTHING, sort: Sort = Sort.newest, cursor: int | None = None, limit: int = 50) -> Sequence[Checkpoint]:
    """The checkpoints behind the one whose id is `cursor`. Raises Invalid for a cursor that no page gave."""
    query = _select(wanted)
    if sort in (Sort.lowest, Sort.highest):
        query = query.where(col(Checkpoint.val_loss).is_not(None))
    return listing.page(session, query, Checkpoint, ORDERS[sort], cursor, limit)


def newer(session: Session, wanted: Wanted, than: int) -> int:
    """How many checkpoints of a list were written after checkpoint `than`."""
    query = _select(wanted).where(col(Checkpoint.id) > than)
    return session.exec(select(func.count()).select_from(query.subquery())).one()


def newest(session: Session) -> int:
    """The highest id of a checkpoint; 0 while there is none."""
    return session.exec(select(func.max(Checkpoint.id))).one() or 0


def _select(wanted: Wanted) -> SelectOfScalar[Checkpoint]:
    query = select(Checkpoint)
    if wanted.run is not None:
        query = query.where(Checkpoint.run_id == wanted.run)
    if wanted.stage is not None:
        of_stage = select(StageRun.id).where(StageRun.id == Checkpoint.stage_id, StageRun.stage == wanted.stage)
        query = query.where(of_stage.exists())
    if wanted.kind is not None:
        return query.where(Checkpoint.kind == wanted.kind)
    return query.where(~_has_a_first_name()) if wanted.once else query


def _has_a_first_name() -> ColumnElement[bool]:
    first = aliased(Checkpoint)
    same = (first.stage_id == Checkpoint.stage_id, first.step == Checkpoint.step, first.sha256 == Checkpoint.sha256)
    named = select(first.id).where(*same, col(first.kind).not_in(SECOND_NAMES)).exists()
    return col(Checkpoint.kind).in_(SECOND_NAMES) & named
