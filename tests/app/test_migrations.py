"""A database that was brought up to date has the tables of the models, however many processes did it."""

import subprocess
import sys
import zlib
from pathlib import Path

import alembic.command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlmodel import SQLModel

import migrations
from app import db

MIGRATE = "import sys; from app import db; db.migrate(sys.argv[1])"


def differences(url):
    engine = db.engine(url)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    engine.dispose()
    return found


def test_an_empty_database_gets_the_tables_of_the_models(empty_url):
    db.migrate(empty_url)
    assert differences(empty_url) == []


def test_migrating_again_changes_nothing(empty_url):
    db.migrate(empty_url)
    db.migrate(empty_url)
    assert differences(empty_url) == []


def test_server_and_workers_may_migrate_at_the_same_time(empty_url):
    processes = [subprocess.Popen([sys.executable, "-c", MIGRATE, empty_url]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert differences(empty_url) == []


def test_a_log_that_is_there_already_gets_its_line_numbers(empty_url):
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = empty_url
    alembic.command.upgrade(config, "0001")
    engine = db.engine(empty_url)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO job (id, kind, status, attempt, max_attempts, losses, devices, priority, directory, queued_at, progress)"
                 " VALUES (1, 'train', 'running', 2, 3, 0, 1, 0, '', '2026-01-01 00:00:00', '{}')")
        )  # fmt: skip
        for attempt, offset, piece in [(1, 0, b"a\nb\n"), (1, 4, b"c\nd"), (2, 0, b"e\n")]:
            values = {"attempt": attempt, "offset": offset, "size": len(piece), "data": zlib.compress(piece)}
            columns = 'job_id, attempt, "offset", size, data'
            connection.execute(text(f"INSERT INTO log_chunk ({columns}) VALUES (1, :attempt, :offset, :size, :data)"), values)
    db.migrate(empty_url)
    with engine.connect() as connection:
        assert connection.execute(text('SELECT lines FROM log_chunk ORDER BY attempt, "offset"')).scalars().all() == [2, 3, 1]
    engine.dispose()


def test_the_numbers_of_jobs_that_are_gone_do_not_come_again_after_the_table_was_written_anew(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = url
    alembic.command.upgrade(config, "0005")
    engine = db.engine(url)
    row = "(kind, status, attempt, max_attempts, losses, devices, priority, directory, queued_at, progress)"
    values = "('train', 'queued', 0, 3, 0, 1, 0, '', '2026-01-01 00:00:00', '{}')"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO job {row} VALUES {values}, {values}"))
        connection.execute(text("DELETE FROM job"))
    db.migrate(url)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO job {row} VALUES {values}"))
        assert connection.execute(text("SELECT id FROM job")).scalars().all() == [3]
    engine.dispose()
