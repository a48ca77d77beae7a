"""Hosts that share a database and an object store and not one directory, for tests; and an attempt whose trainer the test plays."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlmodel import Session, select

from app import artifacts
from app.checkpoints import service as checkpoints
from app.jobs.finish import finish
from app.models import Event, Job, JobStatus, Run
from panollava.events import CheckpointRemoved
from tests.worker.fake_trainer import SCRIPTS, Fake
from worker import scratch, uploads
from worker.follow import hear, take_in
from worker.work import Work

if TYPE_CHECKING:
    from tests.worker.conftest import House


class Host:
    """A machine: a directory of its own, with a worker as a process or as hands in this one."""

    def __init__(self, house: "House", name: str) -> None:
        self.house, self.name, self.home = house, name, house.settings.home / "hosts" / name
        self.scratch = self.home / "scratch"

    def worker(self, broker_url: str, devices: str = "cpu") -> Any:
        mine = {"HOME": self.home, "DATABASE_URL": self.house.settings.database_url, "ARTIFACTS": self.house.settings.artifacts}
        told = {f"PANOLLAVA_{name}": str(value) for name, value in mine.items()}
        return self.house.worker(broker_url, self.name, devices, HOST=self.name, SWEEP_SECONDS="0.5", **told)

    def work(self) -> Work:
        return self.house.work(self.name, scratch=self.scratch)

    def holds(self, name: str) -> Path:
        return artifacts.local(name, self.scratch)


class Played:
    """A job that a host's worker has claimed, and whose trainer is the test."""

    def __init__(self, host: Host) -> None:
        self.house, self.host = host.house, host
        self.job_id = self.house.submit("steady")
        claimed = host.work()._claim()
        assert claimed
        self.claimed = claimed
        scratch.begin(claimed)
        self.uploads = uploads.Uploads(self.house.sessions, claimed, host.scratch)
        self.fake = Fake(SCRIPTS["steady"], claimed.directory, "resampler", 20)

    def save(self, name: str, kind: Any, step: int) -> None:
        self.fake.save(name, kind, step, {})
        self.take_in()

    def remove(self, name: str) -> None:
        (self.claimed.directory / "checkpoints" / name).unlink()
        self.fake.say(CheckpointRemoved(path=f"checkpoints/{name}"))
        self.take_in()

    def take_in(self) -> None:
        said = hear(self.house.sessions, self.claimed)
        with self.house.sessions.writing.begin() as session:
            take_in(session, self.claimed, said)

    def stop(self) -> None:
        """It has ended, all of it is stored."""
        assert self.uploads.rest() == []
        with self.house.sessions.writing.begin() as session:
            assert finish(session, self.job_id, 1, JobStatus.stopped, actor="test", reason="stopped")

    def stored(self) -> dict[str, int]:
        """Names that count, with their steps."""
        return {each.path.rpartition("/")[2]: each.step for each in self.house.checkpoints(self.job_id) if each.stored_at}

    def last_good(self) -> int:
        with self.house.sessions.reading() as session:
            found = checkpoints.last_good(session, session.get_one(Job, self.job_id))
            return found.step if found else 0

    def objects(self) -> set[str]:
        return names(self.claimed.name)


def names(directory: str) -> set[str]:
    """What the store has below a directory."""
    return {name.rpartition("/")[2] for name in artifacts._store().find(directory)}


def row(house: "House", table: type, **where: Any) -> Any:
    with house.sessions.reading() as session:
        return session.exec(select(table).filter_by(**where)).one()


def notes(house: "House") -> list[str]:
    """What people were told."""
    with house.sessions.reading() as session:
        return [event.payload["text"] for event in session.exec(select(Event).where(Event.kind == "note"))]


def shorten(session: Session, steps: int) -> None:
    """The one run of the house is over after so many steps."""
    run = session.exec(select(Run)).one()
    stages = run.config["stages"]
    run.config = run.config | {"stages": stages | {"resampler": stages["resampler"] | {"max_steps": steps}}}
    session.add(run)


def assert_stored(house: "House", job_id: int) -> None:
    """Every row's file and its note are in the store, and are what the row says."""
    rows = house.checkpoints(job_id)
    assert rows
    for each in rows:
        assert each.stored_at and artifacts.holds(each.path, each.sha256, each.size), each.path
        assert artifacts.read_note(each.path).sha256 == each.sha256
