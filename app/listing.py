"""What lists have in common: pages by cursor in any order, numbers in an address, and addresses that leave out what is not set. Knows no table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BeforeValidator
from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from app.errors import Invalid
from app.i18n import _
from app.models import Checkpoint, Run

Listed = TypeVar("Listed", Run, Checkpoint)

BLANK_IS_NONE = BeforeValidator(lambda value: value or None)
"""For query parameters that a form without scripts sends empty."""


@dataclass(frozen=True)
class Order:
    """What a list is sorted by; rows of one key come newest first. `key` is never NULL; no key at all is age."""

    key: ColumnElement[Any] | Mapped[Any] | None = None
    descending: bool = True


def page(session: Session, query: SelectOfScalar[Listed], table: type[Listed], order: Order, cursor: int | None, limit: int) -> Sequence[Listed]:
    """The rows of `query` behind the one whose id is `cursor`. Raises Invalid when there is no such row to say where that is."""
    if cursor is not None:
        query = query.where(_behind(session, table, order, cursor))
    id_, key = col(table.id), order.key
    if key is None:
        query = query.order_by(id_.desc() if order.descending else id_.asc())
    else:
        query = query.order_by(key.desc() if order.descending else key.asc(), id_.desc())
    return session.exec(query.limit(limit)).all()


def _behind(session: Session, table: type[Listed], order: Order, cursor: int) -> ColumnElement[bool]:
    id_, key = col(table.id), order.key
    if key is None:
        return id_ < cursor if order.descending else id_ > cursor
    if (row := session.execute(select(key).where(id_ == cursor)).one_or_none()) is None:
        raise Invalid(_("cursor: {cursor} is not the `next_cursor` of a page.").format(cursor=cursor))
    # One comparison of pairs, because the key may be a query of its own that is then made once a row.
    if order.descending:
        return tuple_(key, id_) < tuple_(row[0], cursor)
    return tuple_(key, -id_) > tuple_(row[0], -cursor)


def numbers(ids: Sequence[str]) -> list[int]:
    """Ids that come joined by commas or several times, each once, in the order in which they were named. Raises Invalid."""
    parts = [part.strip() for text in ids for part in text.split(",") if part.strip()]
    if wrong := [part for part in parts if not part.isascii() or not part.isdigit() or len(part) > 9]:
        raise Invalid(_("ids: {value!r} is no number.").format(value=wrong[0]))
    return list(dict.fromkeys(map(int, parts)))


def address(path: str, **values: object) -> str:
    """The path with its query string; what is None or empty is left out."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, safe=',')}" if given else path
