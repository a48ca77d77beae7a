"""PostgreSQL stopped for 120 s while a job runs, in a thread, so that other drills go on beside it."""

import threading
import time
from types import TracebackType
from typing import Self

from tests.postgres import Postgres
from tests.worker.conftest import House

SECONDS = 120.0
WITNESS = {"TAKEOVER_SECONDS": "60", "SWEEP_SECONDS": "2"}
"""A worker elsewhere that would take over what was silent for half as long as the outage lasts, if it believed its ears at once."""


class Outage(threading.Thread):
    """From a job that runs, with its worker and two others looking on, to a database that is back. `done` waits for the end."""

    def __init__(self, server: Postgres, house: House, broker_url: str) -> None:
        super().__init__()
        self.server, self.house, self.broker_url = server, house, broker_url
        self.over = threading.Event()
        self.error: Exception | None = None
        self.stored = self.written = 0
        """Points in the database when it went, and in the trainer's file when it came back."""

    def __enter__(self) -> Self:
        self.house.worker(self.broker_url)
        self.job_id = self.house.submit("calm", steps=1_000_000)
        self.house.until(lambda: self.house.checkpoints(self.job_id), "a checkpoint is there", 60)
        self.house.worker(self.broker_url, "two")
        self.house.worker(self.broker_url, "witness", BOOT_ID="another machine", **WITNESS)
        for name in ("two", "witness"):
            self.house.until_ready(name)
        self.directory = self.house.directory(self.job_id)
        self.start()
        return self

    def run(self) -> None:
        self.stored = len(self.house.stored_points(self.job_id))
        self.house.engine.dispose()
        self.server.stop()
        try:
            self.over.wait(SECONDS)
            self.written = (self.directory / "events.jsonl").read_bytes().count(b'"type":"metric"')
            self.server.start()
        except Exception as error:
            self.error = error
        self.back_at = time.monotonic()

    def done(self) -> None:
        """Raises what went wrong in between."""
        self.join()
        if self.error:
            raise self.error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Cut it short if nobody waited."""
        self.over.set()
        self.join()
