"""A server and its workers as children of this process: started, watched, ended by handle.

For commands that bring the whole house up and take it down again. What is done with it is theirs.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx

from app import db
from app.access import service as access
from app.access import sessions
from app.access.scope import Scope
from app.i18n import _
from app.settings import Settings

START_SECONDS = 120.0
STOP_SECONDS = 90.0
"""Longer than a worker needs to have its trainer save, or to kill it."""
SHORT_LIFE_SECONDS = 20.0
LAST_LINES = 20


class Died(Exception):
    """A process of the house has ended, or never came up; the message has the last lines of its log."""


@dataclass
class Child:
    """A process and where it writes."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)

    def start(self) -> None:
        self.started = time.monotonic()
        with self.log.open("ab") as output:
            # A session of its own, so that Ctrl-C reaches us alone and they are ended in order.
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )  # fmt: skip

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def check(self) -> None:
        """Raises Died."""
        if self.has_ended:
            text = _("The {name} has ended with exit status {status}. The end of {log}:\n{lines}")
            raise Died(text.format(name=self.name, status=self.process.returncode, log=self.log, lines=last_lines(self.log)))

    def revive(self) -> None:
        """Start it again. Raises Died for one that has not lived long: it would not live longer next time."""
        if time.monotonic() - self.started < SHORT_LIFE_SECONDS:
            self.check()
        self.start()

    def stop(self) -> None:
        """End it and wait until it has ended."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class House:
    """A server that answers, and its workers."""

    settings: Settings
    children: Sequence[Child]

    @property
    def url(self) -> str:
        return sessions.base_url(self.settings)

    @cached_property
    def token(self) -> str:
        """A token that may launch."""
        with db.transaction(self.settings.database_url) as session:
            return access.create(session, "house", Scope.launch)[1]

    def link(self, next: str = "/") -> str:
        """A new sign-in link that leads to this page."""
        with db.transaction(self.settings.database_url) as session:
            return sessions.link_url(self.settings, sessions.create_link(session), next)

    def check(self) -> None:
        """Raises Died when one of its processes is gone."""
        for child in self.children:
            child.check()


def private(home: Path, roots: Sequence[Path]) -> Settings:
    """A house of its own on a free port, whatever PANOLLAVA_* variables say of another one."""
    return Settings(
        home=home, database_url=f"sqlite:///{home / 'panollava.db'}", broker_url=None, artifacts=home / "runs", roots=list(roots),
        host="127.0.0.1", port=free_port(), allowed_hosts=["127.0.0.1", "localhost"],
    )  # fmt: skip


@contextmanager
def running(settings: Settings, devices: Sequence[str], more: Mapping[str, str] | None = None) -> Iterator[House]:
    """Until the block ends, however it ends; workers go first. One worker on each device; `more` are variables for all. Raises Died when the
    house does not come up."""
    settings.home.mkdir(parents=True, exist_ok=True)
    told = environment(settings) | dict(more or {})
    with ExitStack() as stack:
        server = stack.enter_context(_started("server", ["app.cli", "server"], told, settings.home))
        _await(server, f"{sessions.base_url(settings)}/readyz")
        workers = [stack.enter_context(_started(f"worker-{each}", ["worker", "--devices", each], told, settings.home)) for each in devices]
        yield House(settings, (server, *workers))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def environment(settings: Settings) -> dict[str, str]:
    """Ours, with the settings of this house in place of any other's."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PANOLLAVA_")}
    lists = {"roots": os.pathsep.join(map(str, settings.roots)), "allowed_hosts": ",".join(settings.allowed_hosts)}
    told = {name: value for name, value in (settings.model_dump() | lists).items() if value is not None}
    return others | {f"PANOLLAVA_{name.upper()}": str(value) for name, value in told.items()}


@contextmanager
def _started(name: str, module: Sequence[str], environment: Mapping[str, str], home: Path) -> Iterator[Child]:
    # -P: modules of the directory we stand in are not ours.
    child = Child(name, [sys.executable, "-P", "-m", *module], environment, home / f"{name}.log")
    child.log.unlink(missing_ok=True)
    child.start()
    try:
        yield child
    finally:
        child.stop()


def _await(server: Child, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        server.check()
        if time.monotonic() > deadline:
            text = _("The server does not answer at {url}. The end of {log}:\n{lines}")
            raise Died(text.format(url=url, log=server.log, lines=last_lines(server.log)))
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
