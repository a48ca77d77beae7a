"""A browser that runs no script: every page can be read, and a run launched, watched by reloading, and stopped."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from app.processes import House
from tests.browser.conftest import DESKTOP

pytestmark = pytest.mark.browser
PAGES = ("/", "/runs", "/runs/new", "/checkpoints", "/evals", "/evals/new", "/datasets")


@pytest.fixture
def plain(chromium: Browser, house: House) -> Iterator[BrowserContext]:
    """Signed in by a click on the form."""
    context = chromium.new_context(viewport=DESKTOP, java_script_enabled=False)
    page = context.new_page()
    page.goto(house.link())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{house.url}/")
    yield context
    context.close()


def test_a_run_is_launched_read_and_stopped_without_a_script(plain: BrowserContext, house: House, demo_data: Path) -> None:
    page = plain.new_page()
    page.goto(f"{house.url}/runs/new?preset=demo")
    page.locator("[name=data_dir]").fill(str(demo_data / "nowhere"))
    page.locator("form#launch .act button.pri").click()
    expect(page.locator("#summary")).to_contain_text("nowhere")  # what was typed is kept, and what is wrong said
    page.locator("[name=data_dir]").fill(str(demo_data))
    page.locator("[name='stages.resampler.epochs']").fill("500")
    page.locator("form#launch .act button.pri").click()
    page.wait_for_url(re.compile(r"/runs/\d+$"))
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("#track")).to_contain_text("Vision")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/\d+$"))
    expect(page.locator("#head [role=status]")).to_contain_text(re.compile("Stop(ping|ped)"))


def test_the_keys_choose_what_a_run_starts_from_and_the_rest_is_put_away(plain: BrowserContext, house: House) -> None:
    page = plain.new_page()
    page.goto(f"{house.url}/runs/new?preset=full")
    inputs = {"hub": "vision_model", "local": "local.vision_model", "checkpoint": "start_from"}
    page.get_by_role("radio", name="Hub weights").focus()
    for weights, name in inputs.items():
        expect(page.locator(f"[name=weights][value={weights}]")).to_be_checked()
        expect(page.locator(f"[name='{name}']")).to_be_visible()
        expect(page.locator("[name='local.language_model']")).to_be_visible(visible=weights == "local")
        expect(page.locator("[name=start_from]")).to_be_visible(visible=weights == "checkpoint")
        page.keyboard.press("ArrowRight")


def test_a_directory_that_is_not_there_is_told_without_a_script(plain: BrowserContext, house: House) -> None:
    page = plain.new_page()
    page.goto(f"{house.url}/runs/new?preset=full&weights=local")
    page.locator("[name='local.vision_model']").fill("models/nowhere")
    page.locator("form#launch .act button.pri").click()
    expect(page.locator("#summary")).to_contain_text("There is no directory models/nowhere.")
    page.locator("#summary").get_by_role("link", name="Vision model").click()
    expect(page.locator("[name='local.vision_model']")).to_be_focused()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_says_what_it_is_about(plain: BrowserContext, house: House, path: str) -> None:
    page = plain.new_page()
    answer = page.goto(house.url + path)
    assert answer and answer.status == 200
    expect(page.locator("main")).to_contain_text(re.compile(r"\w{3}"))
