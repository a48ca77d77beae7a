"""Every page in both themes and both sizes: nothing in the console, nothing wider than the screen, nothing that axe finds. Takes the pictures."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.client import Client
from app.processes import House
from tests.browser.conftest import DESKTOP, PHONE, PICTURES, TRAINS_FIRST, Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, TRAINS_FIRST]
SETTLED_MS = 700
"""Charts, images and the log have come by then; what is later would be seen as a page that moves."""


@pytest.fixture(scope="module")
def pages(client: Client, chain: dict[str, Any], demo_data: Path) -> Iterator[dict[str, str]]:
    """Every page by name, with something on it: a finished chain, its evaluations, a run that has failed, one at work, one that waits."""
    best = [each["best_checkpoint_id"] for each in chain["stages"]]
    asked = [evaluate(client, checkpoint, demo_data) for checkpoint in best[1:]]
    failed = client.post("/runs", {"preset": "demo", "config": config(demo_data, "too-small", {"vision": {"batch_size": 4, "lr": 1e30}})})
    running = client.post("/runs", {"preset": "demo", "config": config(demo_data, "at-work", {"vision": {"epochs": 900, "batch_size": 8}})})
    waiting = client.post("/runs", {"preset": "demo", "config": config(demo_data, "in-line")})
    wait_for_work(client, running["id"])
    both = ",".join(map(str, asked))
    runs = {name: f"/runs/{run['id']}" for name, run in (("chain", chain), ("failed", failed), ("run", running), ("waiting", waiting))}
    tabs = {f"chain-{tab}": f"/runs/{chain['id']}?tab={tab}" for tab in ("config", "checkpoints", "samples", "timeline", "manage")}
    yield runs | tabs | {
        "delete": f"/runs/{chain['id']}/delete", "queue": "/queue",
        "overview": "/", "runs": "/runs", "runs-filtered": "/runs?status=succeeded&q=nothing", "launch": "/runs/new?preset=demo",
        "duplicate": f"/runs/new?from={chain['id']}", "checkpoints": "/checkpoints", "checkpoint": f"/checkpoints/{best[1]}",
        "compare-checkpoints": f"/checkpoints/compare?ids={best[1]},{best[2]}", "evals": "/evals", "new-eval": f"/evals/new?checkpoint={best[2]}",
        "eval": f"/evals/{asked[0]}", "compare": f"/evals/compare?ids={both}", "datasets": "/datasets",
        "dataset": f"/datasets/check?csv={demo_data / 'test.csv'}",
    }  # fmt: skip
    for run in (waiting, running):
        if client.get(f"/runs/{run['id']}")["status"] in ("queued", "running"):
            client.post(f"/runs/{run['id']}/stop")


def config(data: Path, name: str, stages: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "data_dir": str(data)} | ({"stages": stages} if stages else {})


def evaluate(client: Client, checkpoint: int, data: Path) -> int:
    wanted = {"csv": str(data / "test.csv"), "max_new_tokens": 16, "batch_size": 64, "controls": ["blank"]}
    asked: int = client.post("/evaluations", {"checkpoint_id": checkpoint, "config": wanted})["id"]
    deadline = time.monotonic() + 120
    while (told := client.get(f"/evaluations/{asked}"))["status"] != "succeeded":
        assert time.monotonic() < deadline and told["status"] != "failed", told
        time.sleep(0.5)
    return asked


def wait_for_work(client: Client, run_id: int) -> None:
    deadline = time.monotonic() + 120
    while client.get(f"/runs/{run_id}")["stages"][0]["progress"].get("done", 0) < 30:
        assert time.monotonic() < deadline, client.get(f"/runs/{run_id}")
        time.sleep(0.5)


LOOKS = [("desktop", DESKTOP, "light"), ("desktop", DESKTOP, "dark"), ("phone", PHONE, "light"), ("phone", PHONE, "dark")]


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: f"{look[0]}-{look[2]}")
def look(request: pytest.FixtureRequest, chromium: Browser, house: House) -> Iterator[tuple[str, BrowserContext]]:
    """A browser with this window and theme, signed in."""
    size, viewport, theme = request.param
    context = chromium.new_context(viewport=viewport, color_scheme=theme, reduced_motion="reduce", has_touch=size == "phone")
    page = context.new_page()
    page.goto(house.link())
    page.wait_for_url(f"{house.url}/")
    page.close()
    yield f"{size}-{theme}", context
    context.close()


def test_every_page_is_clean(look: tuple[str, BrowserContext], pages: dict[str, str], house: House, pictures: Path) -> None:
    name, context = look
    with_axe = name in ("desktop-light", "phone-dark")  # the same elements and, by turns, each theme and size: it is slow
    wrong = []
    for page_name, path in pages.items():
        tab = Tab(context.new_page())
        tab.page.goto(house.url + path)
        settle(tab.page)
        tab.page.screenshot(path=pictures / "pages" / f"{page_name}-{name}.png")
        try:
            tab.check(with_axe=with_axe)
        except AssertionError as error:
            wrong.append(str(error))
        tab.page.close()
    assert wrong == []


def settle(page: Page) -> None:
    page.wait_for_timeout(SETTLED_MS)
    if "/evals/compare" in page.url:
        expect(page.locator("#metrics")).to_contain_text("CIDEr", timeout=60_000)
        expect(page.locator("#pano.ready")).to_be_visible(timeout=60_000)
    if "/datasets/check" in page.url:
        expect(page.locator("main")).to_contain_text("rows in order", timeout=60_000)
    if page.locator("figure[data-state=loading]").count():
        page.wait_for_timeout(SETTLED_MS)


def test_pages_are_gone_about_by_keyboard(context: BrowserContext, pages: dict[str, str], house: House) -> None:
    tab = Tab(context.new_page())
    page = tab.page
    page.goto(house.url + pages["overview"])
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url(f"{house.url}/runs")
    page.keyboard.press("/")
    page.keyboard.type("chain gr")  # while one types, keys are letters
    expect(page.locator("main [type=search]")).to_have_value("chain gr")
    page.goto(house.url + pages["chain"])
    chart = page.locator("figure[data-metric=train_loss]")
    expect(chart).to_have_attribute("data-state", "shown")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(chart.locator("[data-part=where]")).to_contain_text("step")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("t")
    page.close()


def test_two_tabs_share_one_stream(context: BrowserContext, pages: dict[str, str], house: House) -> None:
    log = house.settings.home / "server.log"
    before = log.read_text().count("GET /api/v1/events")
    tabs = [context.new_page() for _ in range(3)]
    for page in tabs:
        page.goto(house.url + pages["run"])
        expect(page.locator("#live")).to_have_text("Live")
    assert log.read_text().count("GET /api/v1/events") - before <= 1
    for page in tabs:
        page.close()


@pytest.mark.skipif(not PICTURES, reason="pictures for the README are taken by `make screenshots`")
def test_the_readmes_pictures(context: BrowserContext, client: Client, pages: dict[str, str], house: House, pictures: Path, demo_data: Path) -> None:
    """A chain in its last stage, and the comparison with the view turned to what is asked for."""
    client.post(pages["run"] + "/stop")
    client.post(pages["waiting"] + "/stop")
    stages = {"vision": {"epochs": 12, "batch_size": 8}, "resampler": {"epochs": 20, "batch_size": 8}, "finetune": {"epochs": 80, "batch_size": 8}}
    run = client.post("/runs", {"preset": "demo", "config": config(demo_data, "shapes-e2p", stages)})
    deadline = time.monotonic() + 400
    while (last := client.get(f"/runs/{run['id']}")["stages"][2])["progress"].get("done", 0) < 0.6 * last["progress"].get("total", 1):
        assert time.monotonic() < deadline, last
        time.sleep(0.5)
    for name, path in (("run", f"/runs/{run['id']}"), ("compare", f"{pages['compare']}&yaw=40&view=2")):
        page = context.new_page()
        page.goto(house.url + path)
        settle(page)
        page.wait_for_timeout(3 * SETTLED_MS)
        page.screenshot(path=pictures / f"{name}.png", full_page=name == "compare")
        page.close()
