"""PostgreSQL stopped for 120 s while a job runs, in a thread, so that other drills go on beside it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import Self

from app import db
from panollava.events import EVENTS_FILE
from tests.postgres import Postgres
from tests.worker.conftest import House

SECONDS = 120.0
WITNESS = {"TAKEOVER_SECONDS": "60", "SWEEP_SECONDS": "2"}
"""A worker elsewhere that would take over what was silent for half as long as the outage lasts, if it believed its ears at once."""


class Outage:
    """From a job that runs, with its worker and two others looking on, to a database that is back. `done` waits for the end."""

    def __init__(self, server: Postgres, house: House, broker_url: str) -> None:
        self.server, self.house, self.broker_url = server, house, broker_url
        self.over = threading.Event()
        self.threads = ThreadPoolExecutor(1)
        self.stored = self.written = 0
        """Points in the database when it went, and in the trainer's file when it came back."""

    def __enter__(self) -> Self:
        self.house.worker(self.broker_url)
        self.job_id = self.house.submit("calm", steps=1_000_000)
        self.house.until(lambda: self.house.checkpoints(self.job_id), "a checkpoint is there", 60)
        self.house.worker(self.broker_url, "two")
        self.house.worker(self.broker_url, "witness", HOST="another machine", **WITNESS)
        for name in ("two", "witness"):
            self.house.until_ready(name)
        self.directory = self.house.directory(self.job_id)
        self.happening = self.threads.submit(self._happen)
        return self

    def _happen(self) -> None:
        self.stored = len(self.house.stored_points(self.job_id))
        self.gone_at = self._now()
        self.server.stop()
        try:
            self.over.wait(SECONDS)
        finally:
            self.server.start()
        self.written = self._written()
        self.back_at = self._now()
        with self.house.recovery():
            self.house.until(lambda: len(self.house.stored_points(self.job_id)) >= self.written, "what was written meanwhile is stored")

    def _now(self) -> datetime:
        with self.house.sessions.reading() as session:
            return db.now(session)

    def _written(self) -> int:
        return (self.directory / EVENTS_FILE).read_bytes().count(b'"type":"metric"')

    def done(self) -> None:
        """Raises what went wrong in between."""
        self.happening.result()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Cut it short if nobody waited."""
        self.over.set()
        self.threads.shutdown()
