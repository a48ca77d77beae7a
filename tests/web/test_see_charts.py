"""The charts of a run as the server sends them: which figures there are before any script runs, and what the script is told."""

import json
import math
import re
from html import unescape
from typing import Any

import pytest

from panollava.events import Metric, Progress, StageEvent


@pytest.fixture
def run(house) -> int:
    """A run of two stages, the first at work, with one metric that nobody expects and one that came out as NaN."""
    run = house.submit(stage=["vision", "resampler"])
    work = house.claim()
    values = {"train_loss": 2.0, "lr": 1e-4, "grad_norm": math.nan, "train_invariance": 1.0}
    work.say(
        StageEvent(name="vision", status="started"), Metric(step=1, epoch=0.1, values=values), Progress(done=1, total=40, unit="steps", epoch=0.1)
    )
    return run["id"]


def page(house, path: str) -> str:
    answer = house.browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def figures(html: str) -> list[str]:
    """Names of the charts on the page; the empty one is the script's pattern."""
    return [name for name in re.findall(r'data-metric="([^"]*)"', html) if name]


def told(html: str) -> Any:
    return json.loads(unescape(re.search(r'data-charts="([^"]*)"', html)[1]))


def pressed(html: str) -> list[str]:
    return re.findall(r'data-(?:x|stage)="(\w+)" aria-pressed="true"', html)


def test_losses_come_first_and_the_rest_as_it_is_there(house, run):
    assert figures(page(house, f"/runs/{run}")) == ["train_loss", "val_loss", "grad_norm", "lr", "train_invariance"]


def test_a_stage_without_points_has_the_charts_that_every_stage_gets(house, run):
    assert figures(page(house, f"/runs/{run}?stage=resampler")) == ["train_loss", "val_loss"]


def test_the_address_says_which_charts_are_shown(house, run):
    assert figures(page(house, f"/runs/{run}?metrics=lr,train_loss,lr")) == ["lr", "train_loss"]


def test_the_tools_stand_as_the_address_says(house, run):
    assert pressed(page(house, f"/runs/{run}")) == ["step", "vision"]
    assert pressed(page(house, f"/runs/{run}?x=time&stage=all")) == ["time", "all"]


def test_a_name_from_the_address_is_text_and_not_html(house, run):
    html = page(house, f"/runs/{run}?metrics=%22><script>alert(1)</script>")
    assert "<script>alert" not in html and "&lt;script&gt;" in html


def test_the_script_is_told_what_there_is_and_how_far_it_will_go(house, run):
    facts = told(page(house, f"/runs/{run}"))
    assert [(each["stage"], each["total"], each["best"]) for each in facts["stages"]] == [("vision", 40, None), ("resampler", 0, None)]
    loss, norm = (next(each for each in facts["series"] if each["name"] == name) for name in ("train_loss", "grad_norm"))
    assert (loss["stage"], loss["attempt"], loss["last_step"]) == ("vision", 1, 1)
    assert norm["last_value"] == "NaN"


def test_without_scripts_the_newest_values_are_a_table(house, run):
    table = re.search(r"<noscript>(.*?)</noscript>", page(house, f"/runs/{run}"), re.DOTALL)[1]
    assert re.search(r"train_loss</td><td>Vision</td><td class=\"num\">1</td><td class=\"num\">2</td>", table)
    assert "NaN" in table
