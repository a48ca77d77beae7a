"""Requests that may come twice: a client's key makes the second one find what the first one made."""

import hashlib
from typing import Any, TypeVar

import orjson
from sqlmodel import Session, col, select

from app import db
from app.errors import Conflict
from app.i18n import _
from app.models import Evaluation, Run

Asked = TypeVar("Asked", Run, Evaluation)


def digest(*parts: Any) -> str:
    """Tells a repeated request from another one."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def requested(session: Session, table: type[Asked], key: str, digest: str) -> Asked | None:
    """What was made under this key; None while nothing was, and until this transaction ends nobody else makes it.

    Raises Conflict when the key was used for another request.
    """
    db.lock(session, f"{table.__name__} {key}")
    found = session.exec(select(table).where(col(table.request_key) == key)).first()
    if found and found.request_hash != digest:
        name = table.__name__.lower()
        raise Conflict(_("The key {key!r} was used for {name} {id}, which asked for something else.").format(key=key, name=name, id=found.id))
    return found
