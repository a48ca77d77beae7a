"""Making room, in a browser without scripts and by a script: first a preview, then the button."""

import re

import pytest

from app.models import JobStatus
from panollava.events import StageEvent
from tests.web.test_checkpoints_page import save, stored
from tests.web.test_run_page import look


@pytest.fixture
def run_id(house):
    """A run that has failed, with step checkpoints 1 to 3, and 4 as its best and last."""
    run_id = house.submit(name="mine")["id"]
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"))
    for step in (1, 2, 3):
        save(work, step, "step")
    for kind in ("epoch", "best", "last"):
        save(work, 4, kind, data="four", val_loss=1.0)
    work.end(JobStatus.failed)
    return run_id


def card(house, run_id, query=""):
    return look(house, run_id, f"?tab=checkpoints{query}").piece("retention")


def press(house, run_id, seen, **more):
    fields = dict(re.findall(r'type="hidden" name="(steps|checkpoint_ids)" value="([^"]*)"', seen.source))
    return house.browser.post(f"/runs/{run_id}/retention", data=fields | more, follow_redirects=False)


def test_the_preview_names_what_goes_and_the_button_removes_just_that(house, run_id):
    assert "2 files go" in card(house, run_id).text and "Delete 2 files and free" in card(house, run_id).text
    seen = card(house, run_id, "&steps=2")
    assert "1 file goes" in seen.text and "step=1.ckpt" in seen.text and "step=2.ckpt" not in seen.text
    answer = press(house, run_id, seen, apply="1", automatic="1")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run_id}?tab=checkpoints")
    assert set(stored(house)) == {"step=2.ckpt", "step=3.ckpt", "epoch=4.ckpt", "best=4.ckpt", "last=4.ckpt"}
    after = card(house, run_id)
    assert "Nothing goes" in after.text and 'value="2"' in after.source and "checked" in after.source


def test_only_the_rule_is_kept_where_nothing_is_to_be_removed(house, run_id):
    assert press(house, run_id, card(house, run_id, "&steps=0")).status_code == 303
    assert len(stored(house)) == 6 and "3 files go" in card(house, run_id).text


def test_a_script_previews_and_removes(house, run_id):
    told = house.read.get(f"/runs/{run_id}/retention", steps=0).json()
    assert [each["step"] for each in told["go"]] == [3, 2, 1] and [each["kept_because"] for each in told["stay"]] == [
        ["best", "last", "resuming goes on from it"]
    ]
    assert (told["removed"], told["rule"]) == (False, {"steps": 0, "automatic": False})
    wanted = told["go"][0]["checkpoint_ids"]
    done = house.launch.post(f"/runs/{run_id}/retention", {"steps": 0, "checkpoint_ids": wanted}).json()
    assert done["removed"] and [each["checkpoint_ids"] for each in done["go"]] == [wanted] and 0 < done["bytes_freed"] < told["bytes_freed"]
    assert house.launch.post(f"/runs/{run_id}/retention", {"steps": 5, "apply": False}).json()["go"] == []
    assert len(stored(house)) == 5
    assert house.read.post(f"/runs/{run_id}/retention", {}).status_code == 403


def test_a_checkpoint_is_pinned_let_go_and_deleted(house, run_id):
    one = stored(house)["step=1.ckpt"].id
    assert house.launch.request("PATCH", f"/checkpoints/{one}", json={"pinned": True}).json()["pinned"]
    refused = house.launch.delete(f"/checkpoints/{one}")
    assert refused.status_code == 409 and "is kept: pinned." in refused.json()["detail"]
    assert "pinned" in look(house, run_id, "?tab=checkpoints").piece("checkpoints").text
    house.browser.post(f"/checkpoints/{one}/unpin")
    freed = house.launch.delete(f"/checkpoints/{one}").json()["bytes_freed"]
    assert freed > 0 and house.read.get(f"/checkpoints/{one}").status_code == 404
    two = stored(house)["step=2.ckpt"].id
    house.browser.post(f"/checkpoints/{two}/pin")
    assert stored(house)["step=2.ckpt"].pinned
    house.browser.post(f"/checkpoints/{two}/unpin")
    answer = house.browser.post(f"/checkpoints/{two}/delete", follow_redirects=False)
    assert answer.headers["location"] == f"/runs/{run_id}?tab=checkpoints" and "step=2.ckpt" not in stored(house)
