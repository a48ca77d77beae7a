"""A page that is open while the server is killed and comes back: nothing is missing, nothing comes twice. A real worker goes on
with a scripted trainer."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from app import broker, processes
from app.processes import House
from tests import deployments
from tests.worker import conftest as workshop

pytestmark = [pytest.mark.browser, pytest.mark.redis]

STEPS = 190
"""Never reached, unless the machine stalls for long. The table of a chart has room for 200 rows, a step each."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[workshop.House]:
    databases = deployments.sqlite_files(tmp_path_factory.mktemp("database") / "empty.db")
    with broker.embedded(tmp_path_factory.mktemp("bells")) as bell:
        more = {"broker_url": bell.url, "port": processes.free_port()}
        with workshop.built(tmp_path_factory.mktemp("house"), databases, **more) as house:
            yield house


@pytest.fixture(scope="module")
def house(workers: workshop.House) -> Iterator[House]:
    """A server, whose end is not its workers'."""
    with processes.running(workers.settings, []) as house:
        yield house


class Trainer:
    """The scripted one of the house's only job, which can be made to hold its breath: what a browser is slow to show it does not outrun."""

    def __init__(self, workers: workshop.House, job_id: int) -> None:
        self.workers, self.job_id = workers, job_id
        workers.until(lambda: len(workers.stored_points(job_id)) >= 5, "it trains")
        (self.process,) = workers.trainers()

    def pause(self, after: int = 0) -> int:
        """After so many more steps. How many it has told of, all of which its worker has read."""
        told = self._told()
        self.workers.until(lambda: self._told() >= told + after, "it trains")
        os.kill(self.process.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        self.workers.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
        told = self._told()
        self.workers.until(lambda: len(self.workers.stored_points(self.job_id)) == told, "its worker has read all of it")
        return told

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def _told(self) -> int:
        return len(self.workers.written_points(self.job_id))


def test_charts_and_log_go_on_without_gap_or_repeat_after_the_server_is_killed_and_starts_again(
    context: BrowserContext, workers: workshop.House, house: House
) -> None:  # fmt: skip
    job_id = workers.submit("calm", steps=STEPS)
    workers.worker(str(workers.settings.broker_url))
    trainer = Trainer(workers, job_id)
    told = trainer.pause()
    page = context.new_page()
    page.goto(f"{house.url}/runs/{workers.job(job_id).run_id}")
    figure = page.locator("figure[data-metric=train_loss]")
    figure.locator("[data-act=table]").click()
    rows = figure.locator("tbody tr")
    expect(rows).to_have_count(told)
    trainer.go_on()
    expect(rows.nth(told)).to_be_visible()  # the stream brings more

    server = house.children[0]
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    told = trainer.pause(after=10)  # while nobody serves
    expect(page.locator("#lost-stream")).to_contain_text("Reconnecting", timeout=60_000)
    with workers.recovery():
        server.start()
        expect(page.locator("#live")).to_have_text("Live", timeout=60_000)
        expect(rows).to_have_count(told)
    trainer.go_on()
    expect(rows.nth(told)).to_be_visible()
    workers.stop(job_id)
    workers.wait(job_id, "stopped")
    every = [step for step, _t, _value in workers.written_points(job_id)]
    assert every == list(range(1, len(every) + 1))
    assert_shown(page, every)
    log = page.locator("#log")
    expect(log).to_contain_text(f"step {every[-1]} of {STEPS}")
    shown = re.findall(rf"step (\d+) of {STEPS}", log.locator("[role=log]").inner_text())
    assert [int(step) for step in shown] == every[-len(shown) :]
    page.reload()
    figure.locator("[data-act=table]").click()
    assert_shown(page, every)
    page.close()
    assert workers.states(job_id) == ["queued", "starting", "running", "stopping", "stopped"]
    workers.assert_nothing_lost(job_id)


def assert_shown(page: Page, steps: list[int]) -> None:
    """A row of the chart's table for each, in order."""
    expect(page.locator("figure[data-metric=train_loss] tbody tr")).to_have_count(len(steps))
    told = page.evaluate(
        """() => {
          const table = document.querySelector("figure[data-metric=train_loss] table");
          const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "Step");
          return [...table.tBodies[0].rows].map((row) => Number(row.cells[column].textContent));
        }"""
    )
    assert told == steps
