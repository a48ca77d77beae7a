"""The database: how it is opened, whose clock counts, and how events get ids that readers can trust.

SQLite and PostgreSQL behave alike behind these few functions; nothing else in the house asks which one it is talking to.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
import orjson
import sqlalchemy.orm
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import SessionTransaction, sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session

import migrations
from app.models import Event
from panollava.events import jsonable

AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""The database does not answer, is locked or has a full disk: worth another try."""
GONE = (IntegrityError, StaleDataError, InvalidRequestError)
"""A row that was there a moment ago is not any more, or one is that was not."""
UNDONE = ("40P01", "40001")
"""PostgreSQL has ended one of several that waited for each other (a deadlock), or that could not all be first."""
READ_ONLY_TRANSACTION = "25006"
"""PostgreSQL's word for a write that it refuses because it may only be read."""
LOCK_PATIENCE = 5000
"""Milliseconds that a writer waits for another writer of the same SQLite file."""
CUT_OFF = {
    "connect_timeout": 5, "keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000,
}  # fmt: skip
"""When both ends of a PostgreSQL connection give each other up: after 20 s without an answer (seconds, milliseconds), unless the URL says otherwise.
On a network that was cut they would wait for minutes or hours: a worker until another host has its job, the server with rows of that job locked."""
POOL_SECONDS = 10
"""How long one waits for a connection to PostgreSQL when others have them all: longer than one of them takes to find out that nobody answers."""
EVENT_LOCK = 0x9A11A
"""PostgreSQL advisory lock, held from the moment event ids are taken until the events can be seen."""


def engine(url: str) -> Engine:
    """Connections for any number of threads. One that a restarted server has closed is replaced, not handed out."""
    if url.startswith("sqlite"):
        built = create_engine(url, json_serializer=_to_json)
        _prepare_sqlite(built)
    else:
        given = make_url(url).query
        ours = {name: value for name, value in CUT_OFF.items() if name not in given}
        built = create_engine(url, json_serializer=_to_json, pool_pre_ping=True, pool_timeout=POOL_SECONDS, connect_args=ours)
        _prepare_postgresql(built, ours | given)
    return built


def session_factory(engine: Engine, *, read_only: bool = False) -> sessionmaker[Session]:
    """Sessions on this engine. A read-only one sees the database as it is at its first query, however many follow: what a page counts and
    what it lists agree. The database itself refuses writes in it, and it never waits for a writer."""
    return sessionmaker(_reader(engine) if read_only else engine, class_=Session, expire_on_commit=False)


def _reader(engine: Engine) -> Engine:
    """Every transaction on SQLite sees one moment, and `begin` below knows the readers by this option of PostgreSQL's."""
    isolation = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    return engine.execution_options(postgresql_readonly=True, **isolation)


def migrate(url: str) -> None:
    """Bring the tables up to this version. Any number of processes may do it at once."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__ or "").parent))
    config.attributes["url"] = url
    alembic.command.upgrade(config, "head")


@contextmanager
def transaction(url: str) -> Iterator[Session]:
    """One transaction on a database, whose tables are brought up to date first. For commands; whoever serves keeps an engine."""
    migrate(url)
    opened = engine(url)
    try:
        with session_factory(opened).begin() as session:
            yield session
    finally:
        opened.dispose()


def now(session: Session) -> datetime:
    """This moment by the database's clock, the only one that all hosts share; to the millisecond at least, UTC."""
    if _dialect(session) == "sqlite":
        return datetime.fromisoformat(session.scalar(select(func.strftime("%Y-%m-%d %H:%M:%f+00:00", "now"))) or "")
    at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return at.astimezone(UTC)


def is_read_only(session: Session) -> bool:
    """Whether a PostgreSQL takes no writes: a standby, one that is failed over, or one that was told so. A SQLite file is not asked."""
    if _dialect(session) == "sqlite":
        return False
    told: bool = session.execute(text("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool")).scalar_one()
    return told


def is_refused_write(error: DBAPIError) -> bool:
    """Whether a database has said so of itself that may only be read."""
    return getattr(error.orig, "sqlstate", None) == READ_ONLY_TRANSACTION


def lock(session: Session, name: str) -> None:
    """Until this transaction ends, no other one passes here with the same name. On SQLite a writing transaction is alone once it has begun."""
    session.connection()
    if _dialect(session) == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def lost_a_race(error: BaseException) -> bool:
    """Whether another transaction may be what this one failed for: done again, it finds things settled."""
    return isinstance(error, GONE) or getattr(getattr(error, "orig", None), "sqlstate", None) in UNDONE


def emit(session: Session, kind: str, payload: dict[str, Any], run_id: int | None = None) -> None:
    """Tell the streams, if and when this transaction commits. Payloads are small: what changed, not what it is now."""
    if session.in_nested_transaction():
        raise RuntimeError("Events outlive a savepoint that is rolled back: emit outside of it.")
    session.info.setdefault("events", []).append({"kind": kind, "payload": payload, "run_id": run_id})


@event.listens_for(sqlalchemy.orm.Session, "before_commit")
def _write_events(session: sqlalchemy.orm.Session) -> None:
    """Ids in commit order: on PostgreSQL under a lock that is taken last of all, so that it is short and no deadlock can hold it."""
    if not (events := session.info.pop("events", None)):
        return
    session.flush()
    if _dialect(session) == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": EVENT_LOCK})
    at = now(session)  # type: ignore[arg-type]
    session.execute(insert(Event), [{**each, "at": at} for each in events])


@event.listens_for(sqlalchemy.orm.Session, "after_transaction_end")
def _forget_events(session: sqlalchemy.orm.Session, transaction: SessionTransaction) -> None:
    """Rolled back, or closed without a commit."""
    if transaction.parent is None:
        session.info.pop("events", None)


def _dialect(session: sqlalchemy.orm.Session) -> str:
    return session.get_bind().dialect.name


def _to_json(value: Any) -> str:
    """NaN and infinities as strings: JSON has no word for them, and PostgreSQL refuses what Python would write."""
    return orjson.dumps(jsonable(value)).decode()


def _prepare_sqlite(engine: Engine) -> None:
    """Readers never wait. Writers queue up at their start, for one that turned writer half-way would be refused, not made to wait."""
    if engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions; `begin` below does
        connection.execute(f"PRAGMA busy_timeout = {LOCK_PATIENCE}")
        _use_wal(connection)
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("postgresql_readonly", False)
        connection.exec_driver_sql(f"PRAGMA query_only = {int(read_only)}")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _use_wal(connection: Any) -> None:
    """SQLite refuses this at once, whatever its patience, while another process opens or closes the file: it is asked again."""
    deadline = time.monotonic() + LOCK_PATIENCE / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _prepare_postgresql(engine: Engine, patience: Mapping[str, Any]) -> None:
    """The server is told to watch the connection as closely as this end does: a client that is gone must not keep its locks."""
    watch = {f"tcp_{name}": patience[name] for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")}
    watch["tcp_user_timeout"] = patience["tcp_user_timeout"]

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.execute("; ".join(f"SET {name} = {int(value)}" for name, value in watch.items()))
        connection.commit()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        """SQLAlchemy leaves a connection that a reader had asking for READ WRITE: over the head of a server that was told to be read only, and a
        standby has another error for it than for a write."""
        raw: Any = connection.connection.dbapi_connection
        if raw.read_only is False:
            raw.read_only = None
