"""A PostgreSQL server for tests, from the programs installed here: started, stopped, started again; and databases on one."""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

OPTIONS = ("listen_addresses=", "fsync=off", "full_page_writes=off")


def programs() -> Path:
    """Where the newest version's programs lie. Without any, who asks is skipped by name."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        pytest.skip("no PostgreSQL: no /usr/lib/postgresql/*/bin")
    return found[-1]


@dataclass
class Postgres:
    """A private server on a socket in `home`, which has to be short."""

    home: Path
    programs: Path
    options: tuple[str, ...] = OPTIONS
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.user = "postgres" if os.getuid() == 0 else None  # initdb refuses root
        self.url = f"postgresql+psycopg://postgres@/postgres?host={self.home}"
        if self.user:
            shutil.chown(self.home, self.user)
        make = [self.programs / "initdb", "-D", self.home / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(make, user=self.user, cwd=self.home, check=True, capture_output=True)

    def start(self) -> None:
        """Until it answers."""
        options = (*self.options, f"unix_socket_directories={self.home}")
        command = [self.programs / "postgres", "-D", self.home / "data", *(word for option in options for word in ("-c", option))]
        self.process = subprocess.Popen(command, user=self.user, cwd=self.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(self.url)

    def stop(self) -> None:
        """It ends sessions, then itself."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()


@contextmanager
def running(home: Path) -> Iterator[Postgres]:
    """A new server, until the block ends."""
    server = Postgres(home, programs())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def database(server: str, template: str | None = None) -> Iterator[str]:
    """A new database on the server of this URL: without a table, or as the one with this URL, which nobody else may use now."""
    name = f"panollava_{uuid.uuid4().hex[:8]}"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {make_url(template).database if template else 'template1'}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def administer(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    engine = create_engine(url)
    while True:
        try:
            engine.connect().close()
            break
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    engine.dispose()
