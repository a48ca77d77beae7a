"""An export is asked for, watched and stopped in a browser without scripts, and by a script."""

import re
from pathlib import Path

import pytest

from app.models import JobStatus
from panollava.stages import Stage
from tests.web.test_checkpoints_page import save, stored


@pytest.fixture
def checkpoint(house):
    """One that can answer, of a run that has ended."""
    house.submit(name="mine", stage="resampler")
    work = house.claim()
    save(work, 5, name="r1.ckpt", val_loss=1.0)
    work.end(JobStatus.failed)
    return stored(house)["r1.ckpt"]


def card(house, checkpoint, part=""):
    html = house.browser.get(f"/checkpoints/{checkpoint.id}{part}").text
    return re.sub(r"\s+", " ", re.search(r'<section class="card" id="export".*?</section>', html, re.DOTALL).group())


def press(house, checkpoint, verb=""):
    answer = house.browser.post(f"/checkpoints/{checkpoint.id}/export{verb}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/checkpoints/{checkpoint.id}")


def test_the_button_queues_it_and_the_page_says_how_far_it_is_and_where_it_lies(house, checkpoint):
    url = f"/checkpoints/{checkpoint.id}/export"
    assert f'<form method="post" action="{url}"' in card(house, checkpoint) and "Succeeded" not in card(house, checkpoint)
    press(house, checkpoint)
    assert "Queued" in card(house, checkpoint) and "waiting: " in card(house, checkpoint)
    assert f'action="{url}/stop"' in card(house, checkpoint) and f'action="{url}"' not in card(house, checkpoint)
    work = house.claim()
    (work.directory / "model").mkdir()
    (work.directory / "model" / "config.json").write_text("{}")
    work.end(JobStatus.succeeded)
    done = card(house, checkpoint, "?part=export")
    assert "Succeeded" in done and f"{work.directory}/model" in done and "<form" not in done
    (work.directory / "model" / "config.json").unlink()
    (work.directory / "model").rmdir()
    assert "is not there any more" in card(house, checkpoint) and "Export again" in card(house, checkpoint)


def test_one_that_was_stopped_or_failed_says_why_and_can_be_asked_for_again(house, checkpoint):
    press(house, checkpoint)
    press(house, checkpoint, "/stop")
    assert "Stopped" in card(house, checkpoint) and "It was stopped while it waited" in card(house, checkpoint)
    press(house, checkpoint)
    house.claim().end(JobStatus.succeeded)
    assert "Failed" in card(house, checkpoint) and "<b>It left no result behind</b>: The export left no" in card(house, checkpoint)
    assert "Export again" in card(house, checkpoint)
    assert house.browser.post(f"/checkpoints/{checkpoint.id}/export/stop").status_code == 409


def test_a_script_asks_for_it_and_reads_its_status_reason_and_place(house, checkpoint):
    url = f"/checkpoints/{checkpoint.id}/export"
    assert house.read.get(url).status_code == 404
    assert house.read.post(url).status_code == 403, "reading is not enough"
    asked = house.launch.post(url)
    assert (asked.status_code, asked.json()["status"], asked.json()["directory"]) == (202, "queued", None)
    assert house.launch.post(url).json()["job_id"] == asked.json()["job_id"]
    assert [(each["kind"], each["export_id"]) for each in house.read.get("/queue").json()] == [("export", asked.json()["id"])]
    assert house.launch.post(f"{url}/stop").json()["status"] == "stopped"
    house.launch.post(url)
    work = house.claim()
    (work.directory / "model").mkdir()
    (work.directory / "model" / "config.json").write_text("{}")
    work.end(JobStatus.succeeded)
    told = house.read.get(url).json()
    assert (told["status"], told["directory"], told["is_gone"], told["attempt"]) == ("succeeded", f"{work.directory}/model", False, 1)
    assert house.launch.post(f"{url}/stop").status_code == 409


def test_a_queued_and_a_working_export_are_called_so_on_the_overview(house, checkpoint):
    press(house, checkpoint)
    link = rf'href="/checkpoints/{checkpoint.id}">mine</a> <span class="muted">export</span>'
    assert re.search(link, house.browser.get("/").text)
    house.claim()
    assert re.search(link, house.browser.get("/").text)


def test_a_checkpoint_that_cannot_answer_or_is_gone_is_offered_no_export(house, checkpoint):
    Path(checkpoint.path).unlink()
    assert "<form" not in card(house, checkpoint)
    assert house.launch.post(f"/checkpoints/{checkpoint.id}/export").status_code == 422
    house.submit(name="eyes", stage="vision")
    work = house.claim()
    save(work, 9, name="v1.ckpt", stage=Stage.vision)
    eyes = stored(house)["v1.ckpt"].id
    assert 'id="export"' not in house.browser.get(f"/checkpoints/{eyes}").text
    assert "learns no answers" in house.launch.post(f"/checkpoints/{eyes}/export").text
