"""What was given up and the object store still has."""

from collections.abc import Iterator

from sqlalchemy import Engine

from app import db, discards
from app.formats import size
from app.housekeeping.doctor.finding import Finding
from app.i18n import _, ngettext


def check(engine: Engine) -> Iterator[Finding]:
    """Nothing to say while there is none: a moment after a removal there is some."""
    with db.session_factory(engine, read_only=True)() as session:
        found = discards.waiting(session)
    if not found.count:
        return
    text = ngettext("{n} thing of {size} or more is to leave the store", "{n} things of {size} or more are to leave the store", found.count)
    text = text.format(n=found.count, size=size(found.size))
    if found.problem is None:
        yield Finding("leftovers", "ok", text)
    else:
        do = _("mend the store, or our right to s3:DeleteObject; every worker tries again each ten seconds")
        yield Finding("leftovers", "warn", f"{text}: {found.problem}", do)
