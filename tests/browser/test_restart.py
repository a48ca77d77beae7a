"""A page that is open while the server is killed and comes back: nothing is missing, nothing comes twice. The test plays worker and trainer."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlmodel import Session

from app import db, ingest, processes
from app.client import Client
from app.jobs import service as jobs
from app.models import Attempt, Job, Worker
from app.processes import House
from panollava.events import Metric, StageEvent, encode
from tests.browser.conftest import Tab

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, demo_data: Path) -> Iterator[House]:
    """A server without workers."""
    settings = processes.private(tmp_path_factory.mktemp("house") / "home", [demo_data])
    with processes.running(settings, []) as house:
        yield house


class Trainer:
    """One attempt, told of step by step into the database, whether there is a server or not."""

    def __init__(self, house: House) -> None:
        self.url, self.step = house.settings.database_url, 0
        with db.transaction(self.url) as session:
            worker = _worker(session)
            claimed = jobs.claim(session, worker)
            assert claimed
            self.attempt = claimed.id
        self.say(StageEvent(name="resampler", status="started").model_dump_json())

    def say(self, *lines: str) -> None:
        with db.transaction(self.url) as session:
            attempt = session.get_one(Attempt, self.attempt)
            job = session.get_one(Job, attempt.job_id)
            assert ingest.events(session, job, attempt, "".join(f"{line}\n" for line in lines).encode())

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.say(encode(Metric(step=self.step, epoch=self.step / 50, values={"train_loss": 1 / self.step})).decode().strip())

    def print(self, text: str) -> None:
        with db.transaction(self.url) as session:
            attempt = session.get_one(Attempt, self.attempt)
            assert ingest.log(session, session.get_one(Job, attempt.job_id), attempt, text.encode())


def _worker(session: Session) -> Worker:
    now = db.now(session)
    worker = Worker(
        name="by-hand", host="here", pid=1, pid_started=0, boot_id="", queue="x1", devices=["cpu"], version="0", started_at=now, heartbeat_at=now
    )  # fmt: skip
    session.add(worker)
    session.flush()
    return worker


def test_charts_and_log_go_on_without_gap_or_repeat_after_the_server_is_killed_and_starts_again(
    context: BrowserContext, house: House, client: Client, demo_data: Path
) -> None:  # fmt: skip
    run = client.post("/runs", {"preset": "demo", "config": {"name": "restart", "data_dir": str(demo_data), "stage": "resampler"}})
    trainer = Trainer(house)
    trainer.train(20)
    trainer.print("line 1\nline 2\n")
    tab = Tab(context.new_page())
    page = tab.page
    page.goto(f"{house.url}/runs/{run['id']}")
    figure = page.locator("figure[data-metric=train_loss]")
    figure.locator("[data-act=table]").click()
    expect(figure.locator("tbody tr")).to_have_count(20)
    trainer.train(5)
    expect(figure.locator("tbody tr")).to_have_count(25)

    server = house.children[0]
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    trainer.train(10)  # while nobody serves
    trainer.print("line 3\n")
    expect(page.locator("#lost-stream")).to_contain_text("Reconnecting", timeout=60_000)
    started = time.monotonic()
    server.start()
    expect(page.locator("#live")).to_have_text("Live", timeout=60_000)
    print(f"live again {time.monotonic() - started:.1f} s after the server was started")
    trainer.train(5)
    trainer.print("line 4\n")
    expect(figure.locator("tbody tr")).to_have_count(40)
    assert steps(page) == list(range(1, 41))
    expect(page.locator("#log")).to_contain_text("line 4")
    shown = page.locator("#log [role=log]").inner_text()
    assert [shown.count(f"line {n}") for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
    page.reload()
    figure.locator("[data-act=table]").click()
    expect(figure.locator("tbody tr")).to_have_count(40)
    assert steps(page) == list(range(1, 41))
    page.close()


def steps(page: Page) -> list[int]:
    told: list[int] = page.evaluate(
        """() => {
          const table = document.querySelector("figure[data-metric=train_loss] table");
          const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "Step");
          return [...table.tBodies[0].rows].map((row) => Number(row.cells[column].textContent));
        }"""
    )
    return told
