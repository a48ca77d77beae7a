"""A server and a worker on one device as children of this process, on a home of their own: started, watched, ended by handle.

For commands that bring the whole house up and take it down again. What is done with it is theirs.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.devices import all_devices
from app.i18n import _

START_SECONDS = 120.0
STOP_SECONDS = 90.0
"""Longer than a worker needs to have its trainer save, or to kill it."""
LAST_LINES = 20


class Died(Exception):
    """A process of the house has ended, or never came up; the message has the last lines of its log."""


@dataclass(frozen=True)
class Child:
    """A process and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises Died."""
        if (status := self.process.poll()) is not None:
            text = _("The {name} has ended with exit status {status}. The end of {log}:\n{lines}")
            raise Died(text.format(name=self.name, status=status, log=self.log, lines=last_lines(self.log)))

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
    """A server that answers, a worker, and a token that may launch."""

    url: str
    token: str
    children: Sequence[Child]

    def check(self) -> None:
        """Raises Died when one of its processes is gone."""
        for child in self.children:
            child.check()


@contextmanager
def running(home: Path, roots: Sequence[Path]) -> Iterator[House]:
    """Until the block ends, however it ends; the worker goes first. Raises Died when the house does not come up."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = _environment(home, roots, port)
    with ExitStack() as stack:
        server = stack.enter_context(_started("server", ["app.cli", "server"], environment, home))
        _await(server, f"{url}/readyz")
        worker = stack.enter_context(_started("worker", ["worker", "--devices", all_devices()[0]], environment, home))
        yield House(url, _token(environment), (server, worker))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _environment(home: Path, roots: Sequence[Path], port: int) -> dict[str, str]:
    """Ours, with the settings of this house in place of any other's. Models as small as the demo's are slower on several contended threads."""
    others = {"OMP_NUM_THREADS": "1"} | {name: value for name, value in os.environ.items() if not name.startswith("PANOLLAVA_")}
    settings = {"HOME": home, "ROOTS": os.pathsep.join(map(str, roots)), "PORT": port}
    return others | {f"PANOLLAVA_{name}": str(value) for name, value in settings.items()}


def _command(module: Sequence[str]) -> list[str]:
    # -P: modules of the directory we stand in are not ours.
    return [sys.executable, "-P", "-m", *module]


@contextmanager
def _started(name: str, module: Sequence[str], environment: Mapping[str, str], home: Path) -> Iterator[Child]:
    log = home / f"{name}.log"
    with log.open("wb") as output:
        # A session of its own, so that Ctrl-C reaches us alone and they are ended in order.
        process = subprocess.Popen(
            _command(module), env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )  # fmt: skip
    child = Child(name, process, log)
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


def _token(environment: Mapping[str, str]) -> str:
    made = subprocess.run(_command(["app.cli", "token", "create", "demo"]), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return made.stdout.strip()
