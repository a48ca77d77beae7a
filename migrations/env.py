"""How Alembic reaches the database. `app.db.migrate` names its URL; when `alembic` itself is started, the settings do."""

from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Enum, NullPool, create_engine, event, text
from sqlmodel import AutoString, SQLModel

from app.models import UtcDateTime
from app.settings import get_settings

MIGRATION_LOCK = 0x9A11B
PATIENCE = 60_000
"""Milliseconds to wait for another process that migrates the same SQLite file."""


def render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Migrations speak of plain columns, not of the models of their day."""
    match kind, item:
        case "type", UtcDateTime():
            return "sa.DateTime(timezone=True)"
        case "type", Enum():
            return f"sa.String({item.length})"
        case "type", AutoString():
            return "sa.String()"
    return False


def migrate(url: str) -> None:
    """In one transaction: the database has the old version or the new one, and one process at a time changes it."""
    engine = create_engine(url, poolclass=NullPool)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        if not sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        # Batch: SQLite changes a table by writing it anew.
        context.configure(connection, target_metadata=SQLModel.metadata, render_as_batch=True, render_item=render, transactional_ddl=True)
        with context.begin_transaction():
            context.run_migrations()
        if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            raise RuntimeError(f"The migration left rows that point nowhere: {broken[:5]}")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Foreign keys stay off: dropping the old copy of a table would otherwise delete what points at it."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {PATIENCE}")


migrate(context.config.attributes.get("url") or get_settings().database_url)
