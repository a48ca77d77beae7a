"""The database: can it be reached, are its tables this version's, can it be written, whose clock is right?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

import migrations
from app import db
from app.housekeeping.doctor.finding import Finding
from app.i18n import _
from app.models import Event
from app.settings import Settings

CLOCK_SECONDS = 5.0


@dataclass
class Opened:
    """What was found, and the engine of a database that can be read as this version writes it."""

    findings: list[Finding] = field(default_factory=list)
    engine: Engine | None = None


@contextmanager
def opened(settings: Settings) -> Iterator[Opened]:
    url = make_url(settings.database_url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        yield Opened(
            [Finding("database", "warn", _("{url} is not there yet").format(url=shown), _("`panollava up` or `panollava migrate` makes it"))]
        )
        return
    engine = db.engine(settings.database_url)
    try:
        yield _look(engine, shown)
    finally:
        engine.dispose()


def _look(engine: Engine, shown: str) -> Opened:
    found = Opened()
    try:
        with engine.execution_options(postgresql_readonly=True).connect() as connection:  # which waits for no writer
            current = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        text = _("{url} cannot be read: {error}").format(url=shown, error=_first_line(error))
        found.findings.append(Finding("database", "fail", text, _("start it, or mend PANOLLAVA_DATABASE_URL; trainings at work go on meanwhile")))
        return found
    found.findings.append(Finding("database", "ok", _("{url} answers").format(url=shown)))
    tables = _tables(current)
    found.findings.append(tables)
    if tables.level == "ok":
        found.findings += [_written(engine), _clock(engine)]
        found.engine = engine
    return found


def _tables(current: str | None) -> Finding:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__ or "").parent))
    scripts = ScriptDirectory.from_config(config)
    head, known = scripts.get_current_head(), {each.revision for each in scripts.walk_revisions()}
    if current == head:
        return Finding("migrations", "ok", _("tables of version {version}").format(version=head))
    if current is None or current in known:
        text = _("tables of version {current}, and this program wants {head}").format(current=current or _("none"), head=head)
        return Finding("migrations", "fail", text, _("`panollava migrate`; a server or worker that starts does it too"))
    text = _("tables of version {current}, which this program (up to {head}) does not know").format(current=current, head=head)
    return Finding("migrations", "fail", text, _("update panollava on this machine: another one has a newer version"))


def _written(engine: Engine) -> Finding:
    """A row that is never committed."""
    try:
        with db.session_factory(engine)() as session:
            session.add(Event(kind="doctor", payload={}, at=db.now(session)))
            session.flush()
            session.rollback()
    except SQLAlchemyError as error:
        text = _("it cannot be written: {error}").format(error=_first_line(error))
        do = _("a full disk, missing rights, or a process that holds its lock: `lsof` on the file, or pg_locks, names it")
        return Finding("database writes", "fail", text, do)
    return Finding("database writes", "ok", _("it can be written"))


def _clock(engine: Engine) -> Finding:
    with db.session_factory(engine, read_only=True)() as session:
        apart = (db.now(session) - datetime.now(UTC)).total_seconds()
    if abs(apart) < CLOCK_SECONDS:
        return Finding("clock", "ok", _("{seconds:.1f} s between this host and the database").format(seconds=abs(apart)))
    text = _("the database's clock is {seconds:+.0f} s from this host's").format(seconds=apart)
    do = _("set both by NTP; heartbeats go by the database's clock, so nothing is lost, but logs and checkpoints tell other times")
    return Finding("clock", "warn", text, do)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
