"""A database that was brought up to date has the tables of the models, however many processes did it."""

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlmodel import SQLModel

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
