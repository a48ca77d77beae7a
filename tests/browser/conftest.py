"""A real Chromium in front of the real stack: server, worker, trainer with tiny models. Every page it opens must stay clean."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from app import demo, processes
from app.client import Client
from app.processes import House

PROGRAM = os.environ.get("PANOLLAVA_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
TRAINS_FIRST = pytest.mark.timeout(900)
"""For a file whose first test trains, evaluates and waits before it begins: its own deadlines come to more than the suite's for one test."""
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PICTURES = os.environ.get("PANOLLAVA_PICTURES")
"""Where pictures of the pages go, those of the README and below `pages/` all of them; `make screenshots` says docs/img."""


expect.set_options(timeout=30_000)  # milliseconds; five seconds, the default, pass when the machine stalls


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Like Redis and PostgreSQL a program that a contributor may lack, so its tests are skipped by name; `.ci/run` installs it."""
    if PROGRAM is None:
        pytest.skip("no Chromium: neither PANOLLAVA_TEST_CHROMIUM nor chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, demo_data: Path) -> Iterator[House]:
    """Server and worker for all files. A file that leaves a run at work stops it, because the next one's is behind it."""
    settings = processes.private(tmp_path_factory.mktemp("house") / "home", [demo_data])
    with processes.running(settings, ["cpu"], demo.SMALL_MODELS) as house:
        yield house


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[Client]:
    with Client(house.url, house.token) as client:
        yield client


@dataclass
class Tab:
    """A page that remembers what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def check(self, with_axe: bool = True) -> None:
        """Nothing in the console, nothing wider than the screen, nothing that axe finds."""
        assert self.complaints == [], f"{self.page.url}: {self.complaints}"
        wide, screen = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide == screen, f"{self.page.url} is {wide} px wide on a screen of {screen}"
        if with_axe:
            assert (found := axe(self.page)) == [], f"{self.page.url}: {found}"


@pytest.fixture(scope="module")
def context(chromium: Browser, house: House) -> Iterator[BrowserContext]:
    """A signed-in browser."""
    context = chromium.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.goto(house.link())
    page.wait_for_url(f"{house.url}/")
    page.close()
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Tab]:
    tab = Tab(context.new_page())
    yield tab
    tab.page.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(PICTURES) if PICTURES else tmp_path_factory.mktemp("pictures")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def axe(page: Page) -> list[str]:
    """What axe-core finds: rule and the elements that break it."""
    page.evaluate(AXE.read_text())  # not as a script tag: the page's own policy would refuse it
    found: list[dict[str, Any]] = page.evaluate("rules => axe.run({runOnly: rules}).then(result => result.violations)", RULES)
    return [f"{each['id']}: {[node['html'][:120] for node in each['nodes']][:3]}" for each in found]


@pytest.fixture(scope="session")
def chain(house: House, demo_data: Path) -> dict[str, Any]:
    """A chain of a few steps a stage, trained to its end once for all files."""
    stages = {"vision": {"epochs": 1, "batch_size": 8}, "resampler": {"epochs": 2, "batch_size": 8}, "finetune": {"epochs": 1, "batch_size": 8}}
    with Client(house.url, house.token) as client:
        run = client.post("/runs", {"preset": "demo", "config": {"name": "chain", "data_dir": str(demo_data), "stages": stages}})
        deadline = time.monotonic() + 240
        while (run := client.get(f"/runs/{run['id']}"))["status"] != "succeeded":
            assert time.monotonic() < deadline and run["status"] not in ("failed", "stopped"), run
            time.sleep(0.5)
    return run
