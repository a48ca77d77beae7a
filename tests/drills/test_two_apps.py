"""Two apps on one database, as behind a balancer: what one was told the other one knows, and a stream goes on at either. The browser's own
drill of a killed app is in tests/browser/test_restart.py."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from sqlmodel import col, select

from app import processes
from app.client import Client, parse_events
from app.errors import AppError
from app.models import Event, Job
from app.settings import Settings
from tests.deployments import ON_SERVERS
from tests.drills.conftest import WHOLE_WAY

pytestmark = [pytest.mark.redis, ON_SERVERS]


class Ears(threading.Thread):
    """A stream of one app, from an event on, until that app ends."""

    def __init__(self, url: str, token: str, after: int = 0) -> None:
        super().__init__(daemon=True)
        self.url, self.headers, self.heard = url, {"Authorization": f"Bearer {token}", "Last-Event-ID": str(after)}, []
        self.start()

    def run(self) -> None:
        with suppress(httpx.TransportError), httpx.stream("GET", f"{self.url}/api/v1/events", headers=self.headers, timeout=60) as response:
            self.heard.extend(event.id for event in parse_events(response.iter_lines()) if event.kind != "hello")


@pytest.fixture
def apps(house, redis_url):
    """Two that know of each other only what stands in the database."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(processes.running(settings, []))
            for settings in (
                Settings(
                    home=house.settings.home / name, database_url=house.settings.database_url, broker_url=redis_url,
                    artifacts=house.settings.artifacts, roots=[house.settings.home], port=processes.free_port(),
                )
                for name in ("left", "right")
            )
        ]  # fmt: skip


@pytest.fixture
def clients(apps):
    with Client(apps[0].url, apps[0].token) as left, Client(apps[1].url, apps[0].token) as right:
        yield left, right


def launch(client: Client, house: Any, steps: int) -> tuple[str, int]:
    table = str(house.settings.home / "train.csv")
    config = {"name": "slow", "stage": "resampler", "csv_train": table, "csv_val": table, "stages": {"resampler": {"max_steps": steps}}}
    run = client.post("/runs", {"config": config})["id"]
    with house.sessions.reading() as session:
        return f"/runs/{run}", session.exec(select(Job.id).where(Job.run_id == run)).one()


def both(*actions: Callable[[], Any]) -> int:
    """All at once; how many were not refused."""

    def took(action: Callable[[], Any]) -> bool:
        try:
            action()
        except AppError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        return sum(pool.map(took, actions))


def events_in(house: Any) -> list[int]:
    with house.sessions.reading() as session:
        return list(session.exec(select(Event.id).order_by(col(Event.id))))


def test_what_both_are_told_at_once_happens_once_and_a_stream_of_a_killed_app_goes_on_at_the_other(house, redis_url, apps, clients):
    left, right = clients
    house.worker(redis_url)
    first, second = (Ears(app.url, apps[0].token) for app in apps)
    path, job_id = launch(left, house, steps=100_000)
    house.until(lambda: right.get(path)["status"] == "running", "the other app sees it run")
    assert both(*(lambda client=client: client.post(f"{path}/stop", {}) for client in clients)) >= 1
    house.wait(job_id, "stopped")
    assert both(*(lambda client=client: client.post(f"{path}/resume", {}) for client in clients)) >= 1
    house.until(lambda: house.job(job_id).attempt == 2 and house.stored_points(job_id, 2), "it goes on")

    heard = len(first.heard)
    house.until(lambda: len(first.heard) > heard, "the stream tells of it")
    with house.recovery():
        os.kill(apps[0].children[0].process.pid, signal.SIGKILL)
        first.join(20)
        third = Ears(apps[1].url, apps[0].token, after=first.heard[-1])
        house.until(lambda: third.heard, "the stream goes on")
    right.post(f"{path}/stop", {})
    house.wait(job_id, "stopped")
    whole = events_in(house)
    house.until(lambda: third.heard[-1:] == second.heard[-1:] == whole[-1:], "all was heard")
    assert first.heard + third.heard == second.heard == whole
    assert house.states(job_id) == [*WHOLE_WAY[:3], "stopping", "stopped", *WHOLE_WAY[:3], "stopping", "stopped"]
    house.assert_nothing_lost(job_id)
