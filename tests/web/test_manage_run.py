"""A run in hand: trained again, past its gate, forked, cloned, changed, archived, deleted; by API and by the forms of its page."""

import re
from pathlib import Path

import pytest

from app.jobs import stopping
from app.models import JobStatus, Run
from panollava.events import StageEvent
from tests.web.test_run_page import begun, look, saved

GATED = "resampler reached val_loss 2.34, the gate asks for below 2.1"


def train(house, loss=1.0, stage="resampler"):
    work = begun(house, stage)
    best = saved(work, 5, "epoch", loss)
    work.say(best)
    work.end(JobStatus.succeeded, best=best.path)
    return work


@pytest.fixture
def done(house):
    """Id of a run of one stage that has succeeded."""
    run = house.submit(name="vlm")
    train(house)
    return run["id"]


@pytest.fixture
def gated(house):
    """Id of a run whose resampler was not good enough for its finetune."""
    run = house.submit(stage="resampler,finetune", stages={"finetune": {"gate_below": 2.1}})
    train(house, 2.34)
    return run["id"]


def first_checkpoint(house, run_id):
    return house.read.get(f"/runs/{run_id}/checkpoints").json()["items"][0]["id"]


def post(house, path, **form):
    answer = house.browser.post(path, data=form, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


# gates


def test_a_run_whose_very_first_stage_is_gated_has_every_page_and_says_why_it_does_not_begin(house, gated):
    made = house.launch.post(f"/runs/{gated}/fork", {}).json()
    assert (made["status"], made["stages"][0]["waiting_because"]) == ("gated", GATED)
    assert f"does not start: {GATED}." in look(house, made["id"]).piece("head").text
    for tab in ("charts", "config", "checkpoints", "samples", "timeline", "manage"):
        look(house, made["id"], f"?tab={tab}")
    assert all(house.browser.get(page).status_code == 200 for page in ("/", "/runs", "/runs?status=gated", "/queue"))
    assert house.read.get(f"/runs/{made['id']}/logs").status_code == 404
    assert house.launch.post(f"/runs/{made['id']}/stages/finetune/open-gate").json()["status"] == "queued"


def test_a_closed_gate_is_told_with_its_reason_and_opened_by_api(house, gated):
    told = house.read.get(f"/runs/{gated}").json()
    assert (told["status"], told["stages"][1]["status"], told["stages"][1]["waiting_because"]) == ("gated", "gated", GATED)
    assert [each["id"] for each in house.read.get("/runs", status="gated").json()["items"]] == [gated]
    opened = house.launch.post(f"/runs/{gated}/stages/finetune/open-gate")
    assert (opened.status_code, opened.json()["status"]) == (202, "queued")
    again = house.launch.post(f"/runs/{gated}/stages/finetune/open-gate")
    assert (again.status_code, "no closed gate" in again.json()["detail"]) == (409, True)
    timeline = house.read.get(f"/runs/{gated}/timeline").json()
    assert [(each["new"], each["actor"]) for each in timeline if each["stage"] == "finetune"] == [("gated", "test"), ("queued", "token:test-launch")]


def test_the_page_of_a_gated_run_says_why_and_has_the_button(house, gated):
    page = look(house, gated)
    assert "Gated" in page.piece("head").text
    assert f"Finetune does not start: {GATED}." in page.text
    assert GATED in house.browser.get("/runs?status=gated").text
    post(house, f"/runs/{gated}/stages/finetune/open-gate")
    assert "Finetune waits:" in look(house, gated).text
    assert "its gate was opened" in look(house, gated, "?tab=timeline").text


# again


def test_a_stage_is_trained_again_from_the_page_and_what_came_of_it_is_shown_as_stale(house):
    run = house.submit(stage="resampler,finetune")["id"]
    train(house)
    train(house, stage="finetune")
    assert "Train resampler again" in look(house, run, "?tab=manage").text
    post(house, f"/runs/{run}/stages/resampler/retry")
    assert "Stage finetune of run 1 starts from resampler, which is queued" in look(house, run, "?tab=manage").text
    train(house, 0.5)
    told = house.read.get(f"/runs/{run}").json()
    assert (told["status"], told["stages"][1]["stale_because"]) == ("succeeded", "resampler of run 1 was begun again")
    assert "Finetune is stale: resampler of run 1 was begun again" in look(house, run).text
    post(house, f"/runs/{run}/stages/finetune/retry")
    assert "is stale" not in look(house, run).text


def test_a_failed_stage_goes_on_or_begins_again(house):
    run = house.submit()["id"]
    work = begun(house)
    work.say(saved(work, 4, "step"))
    work.end(JobStatus.failed, detail="CUDA error")
    page = look(house, run, "?tab=manage").text
    assert "Go on with resampler" in page and "Begin resampler again" in page
    assert house.launch.post(f"/runs/{run}/retry").json()["status"] == "queued"
    work = house.claim()
    work.end(JobStatus.failed)
    post(house, f"/runs/{run}/stages/resampler/retry", from_start="true")
    assert house.claim().directory.name == "attempt-3"


def test_a_run_that_has_succeeded_is_not_retried_without_a_stage(house, done):
    answer = house.launch.post(f"/runs/{done}/retry")
    assert (answer.status_code, "name the stage" in answer.json()["detail"]) == (409, True)
    assert house.launch.post(f"/runs/{done}/stages/vision/retry").status_code == 404
    assert house.launch.post(f"/runs/{done}/stages/resampler/retry").json()["status"] == "queued"


# copies


def test_a_fork_shows_on_both_pages_where_its_weights_come_from(house, done):
    answer = house.launch.post(f"/runs/{done}/fork", {"config": {"seed": 5}, "request_key": "once"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["parent_id"], made["config"]["seed"], made["config"]["stage"], made["name"]) == (done, 5, ["finetune"], "vlm-2")
    assert house.launch.post(f"/runs/{done}/fork", {"config": {"seed": 5}, "request_key": "once"}).json()["id"] == made["id"]
    assert [each["run_id"] for each in house.read.get(f"/runs/{made['id']}/lineage").json()["ancestors"]] == [done]
    child = house.read.get(f"/runs/{done}/lineage").json()["children"][0]
    assert (child["run_id"], child["link"]["step"], child["stale_at"]) == (made["id"], 5, None)
    assert f"vlm-2 #{made['id']}" in look(house, done).piece("lineage").text
    assert f"vlm #{done}" in look(house, made["id"]).piece("lineage").text


def test_a_run_launched_from_a_checkpoint_by_the_form_has_the_same_lineage(house, done):
    page = house.browser.get(f"/runs/new?checkpoint={first_checkpoint(house, done)}").text
    assert "From checkpoint" in page
    path = house.read.get(f"/runs/{done}/checkpoints").json()["items"][0]["path"]
    made = house.submit(stage="finetune", init_from=path)
    assert made["parent_id"] == done


def test_what_cannot_be_forked_is_refused_in_words(house, done):
    other = house.submit()["id"]
    answer = house.launch.post(f"/runs/{other}/fork", {"checkpoint_id": first_checkpoint(house, done)})
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Checkpoint 1 is of run {done}, not of run {other}.")
    answer = house.launch.post(f"/runs/{done}/fork", {"stages": ["vision"]})
    assert (answer.status_code, "cannot start the earlier stage vision" in answer.json()["detail"]) == (422, True)
    assert house.launch.post(f"/runs/{done}/fork", {"stages": []}).status_code == 422


def test_a_clone_is_queued_with_what_is_to_be_otherwise(house, done):
    made = house.launch.post(f"/runs/{done}/clone", {"config": {"stages": {"resampler": {"lr": 0.01}}}, "priority": 3}).json()
    assert (made["status"], made["priority"], made["config"]["stages"]["resampler"]["lr"]) == ("queued", 3, 0.01)
    assert made["parent_id"] is None


# changes


def test_name_priority_and_note_are_changed_and_nothing_else(house, done):
    told = house.launch.request("PATCH", f"/runs/{done}", json={"name": "better", "priority": 4, "note": "look at this"}).json()
    assert (told["name"], told["priority"], told["note"]) == ("better", 4, "look at this")
    for wrong in ({"config": {}}, {"priority": 5000}, {"name": "no/slash"}):
        assert house.launch.request("PATCH", f"/runs/{done}", json=wrong).status_code == 422
    post(house, f"/runs/{done}/note", note="<b>bold</b>")
    assert "&lt;b&gt;bold&lt;/b&gt;" in look(house, done).source


def test_an_archived_run_is_out_of_the_list_and_comes_back(house, done):
    assert house.launch.post(f"/runs/{done}/archive").json()["archived_at"]
    assert house.read.get("/runs").json()["items"] == []
    assert [each["id"] for each in house.read.get("/runs", archived=True).json()["items"]] == [done]
    assert f'href="/runs/{done}"' not in house.browser.get("/runs").text
    assert f'href="/runs/{done}"' in house.browser.get("/runs?archived=1").text
    assert "lists leave it out" in look(house, done).text
    post(house, f"/runs/{done}/unarchive")
    assert [each["id"] for each in house.read.get("/runs").json()["items"]] == [done]
    post(house, f"/runs/{done}/archive")
    assert house.launch.request("PATCH", f"/runs/{done}", json={"archived": False}).json()["archived_at"] is None


def test_a_run_at_work_is_neither_archived_nor_deleted_and_the_page_says_why(house):
    run = house.submit()["id"]
    begun(house)
    assert house.launch.post(f"/runs/{run}/archive").status_code == 409
    answer = house.launch.delete(f"/runs/{run}")
    assert (answer.status_code, "a job that is running" in answer.json()["detail"]) == (409, True)
    page = look(house, run, "?tab=manage")
    assert "A job of it (train) is running; stop it first." in page.text
    assert f"/runs/{run}/delete" not in page.source
    assert "Delete for good" not in look(house, run, "/delete").text


# deletion


def test_the_page_before_says_what_goes_and_after_it_nothing_is_left(house, done):
    directory = Path(house.read.get(f"/runs/{done}").json()["directory"])
    assert f'href="/runs/{done}/delete"' in look(house, done, "?tab=manage").source
    page = look(house, done, "/delete").text
    assert "checkpoints 1" in page and "Delete for good" in page
    assert post(house, f"/runs/{done}/delete") == "/runs"
    assert house.read.get(f"/runs/{done}").status_code == 404
    assert not directory.exists()
    assert list(house.settings.artifacts.rglob("*.ckpt")) == []
    assert house.count(Run) == 0
    assert house.launch.delete(f"/runs/{done}").status_code == 404


def test_a_run_that_gave_others_their_weights_is_deleted_by_force_only(house, done):
    made = house.launch.post(f"/runs/{done}/fork", {}).json()["id"]
    assert house.launch.delete(f"/runs/{done}").status_code == 409
    assert "Delete it nevertheless" in look(house, done, "/delete").text
    assert house.launch.delete(f"/runs/{done}?force=true").status_code == 204
    assert "run 1, deleted" in look(house, made).piece("lineage").text


# stopping


def test_a_stop_says_by_which_times_it_grows_stronger(house):
    run = house.submit()["id"]
    begun(house).say(StageEvent(name="resampler", status="started"))
    told = f"after {stopping.TERM_AFTER:g} s is sent SIGTERM, and after {stopping.KILL_AFTER:g} s more it is killed"
    assert told in look(house, run).piece("head").source
    assert told in look(house, run, "?tab=manage").text
    described = house.read.get("/openapi.json").json()["paths"]["/api/v1/runs/{run_id}/stop"]["post"]["responses"]["202"]["description"]
    assert told in described


# one stage


def test_one_stage_is_saved_stopped_resumed_cloned_and_forked_by_api(house):
    run = house.submit(stage="resampler,finetune")["id"]
    train(house)
    begun(house, "finetune")
    of = f"/runs/{run}/stages"
    refused = house.launch.post(f"{of}/resampler/stop")
    assert (refused.status_code, "The run is at stage finetune, which is running." in refused.json()["detail"]) == (409, True)
    assert house.launch.post(f"{of}/finetune/save").status_code == 202
    stopping = house.launch.post(f"{of}/finetune/stop")
    assert (stopping.status_code, stopping.json()["status"]) == (202, "stopping")
    assert house.launch.post(f"{of}/finetune/resume").status_code == 409
    cloned, forked = house.launch.post(f"{of}/finetune/clone", {}), house.launch.post(f"{of}/resampler/fork", {"config": {"seed": 5}})
    assert [(each.status_code, each.json()["config"]["stage"]) for each in (cloned, forked)] == [(201, ["finetune"]), (201, ["finetune"])]
    assert house.launch.post(f"{of}/vision/stop").status_code == 404


def offered(house, run_id):
    """What the page lets one ask of the run's only stage."""
    return re.findall(r'action="/runs/\d+/stages/resampler/([a-z-]+)"', look(house, run_id, "?tab=manage").piece("manage").source)


def test_one_stage_is_saved_stopped_resumed_and_cloned_on_the_page(house):
    run = house.submit()["id"]
    begun(house)
    assert offered(house, run) == ["stop", "save", "clone"]
    post(house, f"/runs/{run}/stages/resampler/save")
    post(house, f"/runs/{run}/stages/resampler/stop")
    queued = house.submit()["id"]
    assert offered(house, queued) == ["stop", "clone"]
    post(house, f"/runs/{queued}/stages/resampler/stop")
    assert offered(house, queued) == ["resume", "retry", "clone"]
    post(house, f"/runs/{queued}/stages/resampler/resume")
    assert house.read.get(f"/runs/{queued}").json()["status"] == "queued"
    made = post(house, f"/runs/{queued}/stages/resampler/clone")
    assert made == f"/runs/{queued + 1}"
