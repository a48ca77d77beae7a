"""From finished checkpoints to the comparison, by mouse: evaluate, compare, look around, and send the address to somebody else."""

import io
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.processes import House
from panollava.views import View, footprint
from tests.browser.conftest import DESKTOP, TRAINS_FIRST, Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, TRAINS_FIRST]
PATIENCE = 120_000


@pytest.fixture(scope="module")
def compared(context: BrowserContext, house: House, chain: dict[str, Any], demo_data: Path) -> Iterator[str]:
    """The address of a comparison that was asked for on the pages, from a run's checkpoints to the two ticked evaluations."""
    tab = Tab(context.new_page())
    page = tab.page
    best = {each["stage"]: each["best_checkpoint_id"] for each in chain["stages"]}
    for stage in ("resampler", "finetune"):
        page.goto(f"{house.url}/evals/new?checkpoint={best[stage]}")
        page.locator("#csv").fill(str(demo_data / "test.csv"))
        page.locator("#name").fill(f"after {stage}")
        page.locator("main form button").last.click()
        page.wait_for_url(re.compile(r"/evals/\d+$"))
        expect(page.locator("main .pill").first).to_contain_text("Succeeded", timeout=PATIENCE)  # comes live
        tab.check()
    page.goto(f"{house.url}/evals")
    for box in page.locator("input[name=ids]").all():
        box.check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url(re.compile("/evals/compare"))
    yield page.url
    page.close()


def test_two_evaluations_stand_side_by_side(tab: Tab, compared: str) -> None:
    page = tab.page
    page.goto(compared)
    expect(page.locator("#metrics")).to_contain_text("CIDEr", timeout=PATIENCE)
    expect(page.locator("main")).to_contain_text("colour")
    expect(page.locator("#samples .pred")).to_have_count(3)  # the reference and two answers
    hidden = page.locator(".evtop .scroll").evaluate_all("tables => tables.map((table) => table.scrollWidth - table.clientWidth)")
    assert hidden and set(hidden) == {0}, "a table of figures is wider than its card"
    tab.check()


def test_the_panorama_is_looked_around_in_and_the_address_says_where(tab: Tab, compared: str) -> None:
    page = tab.page
    page.goto(compared)
    view = page.locator("#pano.ready")
    expect(view).to_be_visible(timeout=PATIENCE)
    before = pixels(page)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 50, "the view is blank"
    box = view.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 150, y, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("yaw="))
    assert not np.array_equal(before, pixels(page))
    view.focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_url(re.compile("pitch="))
    tab.check()


def pixels(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.locator("#pano").screenshot())).convert("RGB"))


def test_the_address_shows_somebody_else_the_same(tab: Tab, compared: str, chromium: Browser, house: House) -> None:
    page = tab.page
    page.goto(compared)
    page.locator("#samples").get_by_role("link", name="All", exact=True).click()
    page.wait_for_url(re.compile("filter=all"))
    page.locator("#list li a").nth(3).click()
    page.wait_for_url(re.compile("sample="))
    page.locator("#views a").nth(2).click()
    page.wait_for_url(re.compile("view=3"))
    expect(page.locator("#pano.ready")).to_be_visible()
    asked, mine = page.locator("#samples .qbar h2").inner_text(), page.locator("#pano").get_attribute("data-yaw")
    other = chromium.new_context(viewport=DESKTOP)
    guest = other.new_page()
    guest.goto(house.link(page.url.removeprefix(house.url)))
    guest.wait_for_url(page.url)
    expect(guest.locator("#samples .qbar h2")).to_have_text(asked)
    expect(guest.locator("#pano")).to_have_attribute("data-yaw", str(mine))
    expect(guest.locator("#views a").nth(2)).to_have_attribute("aria-current", "true")
    other.close()


def test_outlines_in_the_browser_are_those_of_the_renderer(tab: Tab, compared: str) -> None:
    """The same 50 views, however they look, and crops and the whole, from both: nowhere a tenth of a degree apart."""
    rng = random.Random(0)
    views = [View(rng.uniform(-180, 180), rng.uniform(-60, 60), rng.uniform(30, 120)) for _ in range(50)]
    views += [View(rng.uniform(-180, 360), 0, fov, "equirectangular") for fov in (30, 90, 120, 169, 360)]
    tab.page.goto(compared)
    source = tab.page.evaluate("document.querySelector('script[src*=\"/js/\"]').src.replace(/[^/]+$/, 'sphere.js')")
    told = tab.page.evaluate(
        "([source, views]) => import(source).then(({ footprint }) => views.map((view) => footprint(view, 8)))",
        [source, [asdict(view) for view in views]],
    )
    for view, theirs in zip(views, told, strict=True):
        ours = directions(footprint(view, 8))
        nearest = np.degrees(np.arccos(np.clip(directions(np.array(theirs)) @ ours.T, -1, 1))).min(axis=1)
        assert nearest.max() < 0.1, view


def directions(angles: np.ndarray) -> np.ndarray:
    """Longitude and latitude in degrees [n, 2] -> unit vectors [n, 3]."""
    longitude, latitude = np.radians(angles).T
    return np.stack([np.sin(longitude) * np.cos(latitude), np.sin(latitude), np.cos(longitude) * np.cos(latitude)], axis=1)
