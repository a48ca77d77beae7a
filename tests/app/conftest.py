"""The manager's core on a real database, each test on one of its own: SQLite, and PostgreSQL where there is one."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, SQLModel, col, select

from app import db, ingest
from app.jobs import service as jobs
from app.models import Attempt, Event, Job, Run, Transition, Worker
from app.runs import service as runs
from app.settings import Settings
from panollava import events, rundir
from panollava.config import RunConfig
from panollava.events import CheckpointSaved, StageEvent
from panollava.rundir import Architecture, CheckpointNote
from tests.postgres import administer, database
from tests.tables import write_table

ARCHITECTURE = Architecture(
    vision_model="tiny", vision_type="siglip_vision_model", vision_width=8, vision_layers=1, image_size=32, patch_size=8,
    language_model="tiny", language_type="qwen2", language_width=8, language_layers=1, resampler="mlp", resampler_width=8, pool=2, views=8,
)  # fmt: skip


# Databases


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once; every test copies it."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    db.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_url: str) -> Iterator[str]:
    """One for all tests, which is much faster than one for each."""
    with database(postgres_url) as url:
        db.migrate(url)
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without a table."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'home' / 'empty.db'}"
    else:
        with database(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.fixture
def database_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database with every table and no row."""
    if kind == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "panollava.db")
        return f"sqlite:///{tmp_path / 'panollava.db'}"
    url: str = request.getfixturevalue("migrated_postgres_url")
    tables = ", ".join(f'"{name}"' for name in SQLModel.metadata.tables)
    administer(url, f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = db.engine(database_url)
    yield engine
    engine.dispose()


# The house


@pytest.fixture
def house(database_url: str, engine: Engine, tmp_path: Path) -> "House":
    write_table(tmp_path, "train", "valid", "test")
    return House(Settings(home=tmp_path / "home", database_url=database_url, roots=[tmp_path]), engine, tmp_path)


@pytest.fixture
def session(house: "House") -> Iterator[Session]:
    """A writer's session, for tests that need only one."""
    with house.writing() as session:
        yield session


@dataclass
class House:
    """Rows and files without a server and without a worker process."""

    settings: Settings
    engine: Engine
    root: Path

    def __post_init__(self) -> None:
        self.writing, self.reading = db.session_factory(self.engine), db.session_factory(self.engine, read_only=True)

    def config(self, **more: Any) -> RunConfig:
        return RunConfig.model_validate({"data_dir": str(self.root)} | more)

    def create(self, session: Session, stage: str = "resampler", **more: Any) -> Run:
        return runs.create(session, self.config(stage=stage, **more), self.settings, actor="ann")

    def worker(self, session: Session, name: str = "one", devices: int = 1) -> Worker:
        now = db.now(session)
        worker = Worker(
            name=name, host="here", pid=1, pid_started=0.0, boot_id="boot", queue=f"x{devices}", devices=[str(n) for n in range(devices)],
            version="0", started_at=now, heartbeat_at=now,
        )  # fmt: skip
        session.add(worker)
        session.flush()
        return worker

    def claim(self, session: Session, worker: Worker | None = None) -> tuple[Job, Attempt]:
        attempt = jobs.claim(session, worker or self.worker(session, f"worker-{uuid.uuid4().hex[:6]}"))
        assert attempt
        return session.get_one(Job, attempt.job_id), attempt

    def running(self, session: Session, stage: str = "resampler", **more: Any) -> tuple[Job, Attempt]:
        """A run whose first stage is at work."""
        self.create(session, stage, **more)
        job, attempt = self.claim(session)
        self.tell(session, job, attempt, StageEvent(name=job.kind, status="started"))
        return job, attempt

    def tell(self, session: Session, job: Job, attempt: Attempt, *told: events.Event) -> bool:
        return ingest.events(session, job, attempt, b"".join(map(events.encode, told)))

    def saved(self, attempt: Attempt, step: int, kind: str = "step", name: str | None = None, **metrics: float) -> CheckpointSaved:
        """A checkpoint file with its note, and the event that tells of it."""
        path = Path(attempt.directory, "checkpoints", name or f"{kind}={step:06d}.ckpt")
        told = write_checkpoint(path, step, kind, metrics)
        return told.model_copy(update={"path": str(path.relative_to(attempt.directory))})

    def states(self, session: Session, job: Job) -> list[str]:
        """Every status the job ever had, in order."""
        history = session.exec(select(Transition).where(Transition.job_id == job.id).order_by(col(Transition.id)))
        return [str(move.new) for move in history]

    def told(self, session: Session, kind: str) -> list[dict[str, Any]]:
        """What the streams were told, as soon as it is committed."""
        session.commit()
        return [event.payload for event in session.exec(select(Event).where(Event.kind == kind).order_by(col(Event.id)))]


def write_checkpoint(path: Path, step: int, kind: str, metrics: dict[str, float]) -> CheckpointSaved:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights" * step)
    facts = {"kind": kind, "step": step, "epoch": 1.0, "metrics": metrics, "sha256": rundir.sha256(path), "size": path.stat().st_size}
    note = CheckpointNote(stage="resampler", created_at=datetime.now(UTC), architecture=ARCHITECTURE, config={}, tensors={}, **facts)
    rundir.write_whole(rundir.note_path(path), note.model_dump_json())
    return CheckpointSaved(path=path.name, **facts)


@pytest.fixture
def checkpoint(house: House) -> Path:
    """A checkpoint that no run of this database has made."""
    path = house.root / "elsewhere" / "best.ckpt"
    write_checkpoint(path, 3, "best", {"val_loss": 0.5})
    return path
