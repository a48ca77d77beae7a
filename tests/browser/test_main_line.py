"""The main job by mouse, against the real stack: sign in, launch, watch, stop, resume, and compare what came out."""

import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.client import Client
from app.logs import plain
from app.pages import static_url
from app.processes import House
from tests.app.test_log_text import LEVELS
from tests.browser.conftest import Tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 90_000
"""Milliseconds for what a trainer must do first: import torch, load models, take a step."""
LAUNCHED: dict[str, int] = {}


def test_sign_in_launch_watch_stop_resume_and_the_next_stage_by_itself(tab: Tab, house: House, client: Client, demo_data: Path) -> None:
    page = tab.page
    launch(page, house, demo_data)
    run_id = int(page.url.rsplit("/", 1)[1])
    track = page.locator("#track")

    expect(page.locator("#head [role=status]")).to_contain_text("Running", timeout=PATIENCE)
    expect(page.locator("#head")).to_contain_text("heartbeat")
    expect(track).to_contain_text(re.compile(r"from vision@\d+"), timeout=PATIENCE)  # the chain went on by itself
    expect(track.locator(".st-resampler")).to_contain_text("s/step", timeout=PATIENCE)
    expect(page.locator("#charts .seg button[data-stage=resampler]")).to_have_attribute("aria-pressed", "true")  # charts follow the chain
    expect(page.locator("figure[data-metric=train_loss] [data-part=value]")).to_have_text(re.compile(r"\d"), timeout=PATIENCE)
    assert statistics.median(delays(page, client, run_id)) < 1.0
    expect(page.locator("#log")).to_contain_text("step")

    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#head [role=status]")).to_contain_text("Stopped", timeout=PATIENCE)
    saved = wait_for(lambda: checkpoints(client, run_id, "last"), "the checkpoint that a stop leaves")[0]
    page.locator("#head .act").get_by_role("button", name="Resume").click()
    expect(page.locator("#head [role=status]")).to_contain_text("Running", timeout=PATIENCE)
    expect(track).to_contain_text(f"went on at step {saved['step']}", timeout=PATIENCE)
    client.post(f"/runs/{run_id}/stop")
    expect(page.locator("#head [role=status]")).to_contain_text("Stopped", timeout=PATIENCE)
    tab.check()
    LAUNCHED["stopped"] = run_id


def test_a_browser_tells_the_level_of_a_line_as_the_server_does(tab: Tab, house: House) -> None:
    tab.page.goto(house.url)
    told = tab.page.evaluate(
        "([address, patterns, lines]) => import(address).then(({ levelTeller }) => lines.map(levelTeller(patterns)))",
        [static_url("js/log-text.js"), plain.PATTERNS, list(LEVELS)],
    )
    assert dict(zip(LEVELS, told, strict=True)) == LEVELS


def launch(page: Page, house: House, data: Path) -> None:
    """The form, from the demo's preset, with a resampler that goes on until it is stopped."""
    page.goto(f"{house.url}/runs/new?preset=demo")
    for field, value in {"name": "by-mouse", "data_dir": str(data), "stages.vision.epochs": "1", "stages.resampler.epochs": "500"}.items():
        page.locator(f"[name='{field}']").fill(value)
    page.locator("[name='stages.resampler.batch_size']").fill("no number")
    expect(page.locator("[id='e-stages.resampler.batch_size']")).to_be_visible()
    page.locator("[name='stages.resampler.batch_size']").fill("4")
    expect(page.locator("[id='e-stages.resampler.batch_size']")).to_be_hidden()
    page.locator("form#launch .act button.pri").click()
    page.wait_for_url(re.compile(r"/runs/\d+$"))


def test_another_choice_of_weights_takes_the_models_along_and_is_in_the_address(tab: Tab, house: House) -> None:
    page = tab.page
    page.goto(f"{house.url}/runs/new?preset=demo")
    name, directory = page.locator("[name=vision_model]"), page.locator("[name='local.vision_model']")
    shipped = directory.input_value()
    page.locator("label[for=f-weights-hub]").click()
    expect(name).to_have_value("google/siglip-base-patch16-224")  # a path is none
    expect(page.locator("#as-command code")).to_contain_text("--vision-model google/siglip-base-patch16-224")
    page.locator("label[for=f-weights-local]").click()
    expect(directory).to_have_value(shipped)
    expect(page.locator("#as-command code")).not_to_contain_text("--vision-model")
    page.locator("label[for=f-weights-checkpoint]").click()
    expect(name).to_have_value(shipped)
    expect(page.locator("#e-init_from")).to_have_text("Choose the checkpoint to continue from.")
    expect(page).to_have_url(re.compile("weights=checkpoint"))
    page.reload()
    expect(page.locator("[name=weights][value=checkpoint]")).to_be_checked()
    tab.check()


def test_another_overlap_loss_is_said_at_its_stage(tab: Tab, house: House) -> None:
    page = tab.page
    page.goto(f"{house.url}/runs/new?preset=demo")
    vision = page.locator(".link.st-vision .learning")
    expect(vision).to_have_text("vicreg loss; learns expander, vision")
    page.locator("details:has([name=overlap_loss]) summary").click()
    page.locator("[name=overlap_loss]").select_option("densecl")
    expect(vision).to_have_text("densecl loss; learns expander, vision")
    page.locator("[name=overlap_loss_weight]").fill("0.1")
    expect(page.locator(".link.st-resampler .learning")).to_contain_text("autoregressive + 0.1 densecl loss")
    tab.check()


def delays(page: Page, client: Client, run_id: int) -> list[float]:
    """Seconds between the moment a trainer appended a step's metrics and the moment the browser showed them, of ten seconds of steps."""
    figure = page.locator("figure[data-metric=train_loss]")
    figure.locator("[data-act=table]").click()
    seen: list[tuple[float, int]] = page.evaluate(WATCH)
    figure.locator("[data-act=table]").click()
    directory = Path(client.get(f"/runs/{run_id}")["directory"])
    lines = [json.loads(line) for path in directory.glob("*_resampler/attempt-1/events.jsonl") for line in path.read_text().splitlines()]
    appended = {line["step"]: line["t"] for line in lines if line["type"] == "metric" and "train_loss" in line["values"]}
    found = [at - appended[step] for at, step in seen if step in appended]
    assert len(found) >= 5, (seen, sorted(appended)[-3:])
    return found


WATCH = """() => new Promise((resolve) => {
  const table = document.querySelector("figure[data-metric=train_loss] table");
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "Step");
  const newest = () => Math.max(...[...table.tBodies[0].rows].map((row) => Number(row.cells[column].textContent.replace(/\\D/g, ""))));
  const first = newest(); // what was there before says nothing about when it came
  const seen = [];
  const look = () => {
    const step = newest();
    if (step > (seen.at(-1)?.[1] ?? first)) seen.push([Date.now() / 1000, step]);
  };
  const observer = new MutationObserver(look);
  observer.observe(table, { childList: true, subtree: true, characterData: true });
  setTimeout(() => { observer.disconnect(); resolve(seen); }, 10000);
})"""


def checkpoints(client: Client, run_id: int, kind: str) -> list[dict[str, Any]]:
    return [each for each in client.get(f"/runs/{run_id}/checkpoints")["items"] if each["kind"] == kind]


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)
    return result
