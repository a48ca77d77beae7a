"""The web application as it is served, on a real SQLite file, without a worker: tests play one by calling what it calls."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from app import db, ingest
from app.access import service as access
from app.access import sessions
from app.access.scope import Scope
from app.client import Client
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.main import create_app
from app.models import Attempt, Job, JobStatus, Worker
from app.serve import Server
from app.settings import Settings
from panollava import events, rundir
from panollava.rundir import Architecture, CheckpointNote
from tests.tables import write_table

ARCHITECTURE = Architecture(
    vision_model="tiny", vision_type="siglip_vision_model", vision_width=8, vision_layers=1, image_size=32, patch_size=8,
    language_model="tiny", language_type="qwen2", language_width=8, language_layers=1, resampler="mlp", resampler_width=8, pool=2, views=8,
)  # fmt: skip


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """Migrated once; every test gets a copy."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    db.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def house(tmp_path, empty_database) -> Iterator["House"]:
    house = House(settings(tmp_path, empty_database))
    with house.client:
        yield house


@pytest.fixture(scope="session")
def quiet_house(tmp_path_factory, empty_database) -> Iterator["House"]:
    """One for all tests in which nothing ever comes to be."""
    house = House(settings(tmp_path_factory.mktemp("quiet"), empty_database))
    with house.client:
        yield house


def settings(home: Path, empty_database: Path) -> Settings:
    shutil.copy(empty_database, home / "panollava.db")
    write_table(home, "train")
    return Settings(home=home, roots=[home], allowed_hosts=["testserver", "127.0.0.1"])


@pytest.fixture
def serve() -> Any:
    return serving


@pytest.fixture
def served(house) -> Iterator["Served"]:
    with serving(house.settings) as served:
        yield served


class House:
    """An app, a client for each scope, and what a worker would do."""

    cookie = "panollava_session_80"
    """By which http://testserver, the address that test clients use, knows a browser."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self.reading, self.writing = (getattr(self.app.state.panollava, name).sessions for name in ("reading", "writing"))
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.read, self.launch, self.admin = (Api(self.client, self.token(scope)) for scope in Scope)
        self.table = str(settings.home / "train.csv")

    def token(self, scope: Scope) -> str:
        with self.writing.begin() as session:
            return access.create(session, f"test-{scope}", scope)[1]

    @cached_property
    def browser(self) -> TestClient:
        """A signed-in browser without scripts; it follows redirects."""
        client = TestClient(self.app, raise_server_exceptions=False, headers={"Accept": "text/html", "Origin": "http://testserver"})
        with self.writing.begin() as session:
            client.cookies.set(self.cookie, sessions.open_session(session, sessions.create_link(session)))
        return client

    def submit(self, **config: Any) -> dict[str, Any]:
        """A run on the test's table."""
        values = {"csv_train": self.table, "csv_val": self.table, "stage": "resampler"} | config
        answer = self.launch.post("/runs", {"config": values})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def checkpoint(self, name: str, **architecture: Any) -> Path:
        """A file with a note, whatever it holds."""
        path = self.settings.home / name
        path.write_bytes(b"weights")
        note = CheckpointNote(
            stage="finetune", kind="best", step=1, epoch=1, sha256="0", size=7, created_at=rundir.now(), config={}, tensors={},
            architecture=ARCHITECTURE.model_copy(update=architecture),
        )  # fmt: skip
        rundir.note_path(path).write_text(note.model_dump_json())
        return path

    # what a worker does

    def claim(self, devices: int = 1) -> "Claimed":
        with self.writing.begin() as session:
            worker = session.exec(select(Worker).where(Worker.name == f"x{devices}")).first() or _worker(session, devices)
            attempt = jobs.claim(session, worker)
            assert attempt is not None, "there is no job to claim"
            return Claimed(self, attempt.job_id, attempt.id, Path(attempt.directory))

    def count(self, table: type) -> int:
        with self.reading() as session:
            return len(session.exec(select(table)).all())


@dataclass
class Claimed:
    """A job that the test works on."""

    house: House
    job_id: int
    attempt_id: int
    directory: Path

    def say(self, *told: Any) -> None:
        """The trainer writes events, and the worker brings them in."""
        lines = b"".join(events.encode(each) for each in told)
        self._with(lambda session, job, attempt: ingest.events(session, job, attempt, lines))

    def print(self, text: str) -> None:
        self._with(lambda session, job, attempt: ingest.log(session, job, attempt, text.encode()))

    def end(self, status: JobStatus, **more: Any) -> None:
        self._with(lambda session, job, attempt: finish(session, job.id, attempt.number, status, actor="test", **{"reason": str(status)} | more))

    def _with(self, verb: Any) -> None:
        with self.house.writing.begin() as session:
            assert verb(session, session.get_one(Job, self.job_id), session.get_one(Attempt, self.attempt_id))


def _worker(session: Session, devices: int) -> Worker:
    now = db.now(session)
    worker = Worker(
        name=f"x{devices}", host="here", pid=1, pid_started=0, boot_id="", queue=f"x{devices}", devices=[str(n) for n in range(devices)],
        version="0", started_at=now, heartbeat_at=now,
    )  # fmt: skip
    session.add(worker)
    session.flush()
    return worker


class Api:
    """The client of one token, with paths below the prefix."""

    def __init__(self, client: TestClient, token: str) -> None:
        self._client, self.token = client, token

    def request(self, method: str, path: str, **more: Any) -> Any:
        return self._client.request(method, f"/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"}, **more)

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params)

    def post(self, path: str, json: Any = None) -> Any:
        return self.request("POST", path, json=json)

    def delete(self, path: str) -> Any:
        return self.request("DELETE", path)


@dataclass
class Served:
    """An app behind a real port."""

    app: FastAPI
    server: Server
    url: str

    def client(self, token: str) -> Client:
        return Client(self.url, token)


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    app = create_app(settings)
    server = Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(app, server, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server did not end"
