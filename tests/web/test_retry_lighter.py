"""A stage that ran out of memory has a button that tries it again with half its micro-batches."""

import re

import pytest

from app.models import JobStatus, StageRun
from panollava.events import StageEvent
from tests.web.test_manage_run import post
from tests.web.test_run_page import begun, look


@pytest.fixture
def starved(house):
    """Id of a run that ran out of memory, and whose trainer knew what would need less."""
    run = house.submit(name="vlm")
    work = begun(house, "resampler")
    said = {"step": 12, "reason": "out_of_memory", "detail": "Out of memory on cuda:0 in step 12.", "suggestion": {"accumulation": 2}}
    work.say(StageEvent(name="resampler", status="failed", **said))
    work.end(JobStatus.failed, reason="out_of_memory", detail="Out of memory on cuda:0 in step 12.")
    return run["id"]


def test_the_page_offers_what_needs_less_memory_and_the_button_queues_it(house, starved):
    page = look(house, starved)
    assert "It ran out of memory" in page.text
    assert "Retry with accumulation 1 → 2" in page.text
    post(house, f"/runs/{starved}/stages/resampler/retry-lighter")
    assert house.read.get(f"/runs/{starved}").json()["status"] == "queued"
    assert "to be tried again with settings that need less memory" in look(house, starved, "?tab=timeline").text


def test_by_api_it_is_a_conflict_where_nothing_is_suggested(house, starved):
    assert house.launch.post(f"/runs/{starved}/stages/resampler/retry-lighter").status_code == 202
    again = house.launch.post(f"/runs/{starved}/stages/resampler/retry-lighter")
    assert (again.status_code, "Nothing is known" in again.json()["detail"]) == (409, True)


@pytest.fixture
def smaller(house):
    """Id of a run whose stage ran out of memory twice: it was begun again with half the batch, then went on with less besides."""
    run = house.submit(name="vlm", stage="resampler,finetune", stages={"resampler": {"batch_size": 24}}, precision="fp32")
    for suggestion in ({"batch_size": 12, "accumulation": 2}, {"gradient_checkpointing": True}):
        work = begun(house, "resampler")
        work.say(StageEvent(name="resampler", status="failed", reason="out_of_memory", detail="Out of memory on cuda:0.", suggestion=suggestion))
        work.end(JobStatus.failed, reason="out_of_memory", detail="Out of memory on cuda:0.")
        post(house, f"/runs/{run['id']}/stages/resampler/retry-lighter")
    begun(house, "resampler")
    return run["id"]


CHANGED = "batch_size 24 → 12, accumulation 1 → 2, gradient_checkpointing false → true"


def test_what_a_stage_is_trained_with_instead_is_named_at_the_stage_and_at_each_attempt(house, smaller):
    page = look(house, smaller, "?tab=timeline")
    assert CHANGED in page.piece("track").text
    attempts = page.piece("timeline").source.partition('id="attempts-title"')[2]
    told = [re.findall("with (.*), since memory ran out", row) for row in attempts.split("<tr title")[1:]]
    assert told == [[], ["batch_size 24 → 12, accumulation 1 → 2"], [CHANGED]]
    assert f"is trained with {CHANGED} since it ran out of memory; a duplicate has that too." in look(house, smaller, "?tab=config").text


def test_the_api_has_them_by_stage_and_by_attempt_and_the_schema_describes_both(house, smaller):
    changed = {"batch_size": 12, "accumulation": 2, "gradient_checkpointing": True}
    resampler, finetune = house.read.get(f"/runs/{smaller}").json()["stages"]
    assert (resampler["overrides"], finetune["overrides"], resampler["suggestion"]) == (changed, None, None)
    found = house.read.get(f"/runs/{smaller}/attempts").json()
    assert [each["overrides"] for each in found] == [{}, {"batch_size": 12, "accumulation": 2}, changed]
    assert [each["suggestion"] for each in found] == [{"batch_size": 12, "accumulation": 2}, {"gradient_checkpointing": True}, None]
    schemas = house.client.get("/api/v1/openapi.json", headers={"Authorization": f"Bearer {house.read.token}"}).json()["components"]["schemas"]
    assert all(schemas[name]["properties"][field]["description"] for name in ("StageOut", "AttemptOut") for field in ("overrides", "suggestion"))


def test_a_clone_a_duplicate_and_the_command_line_of_it_have_them_too(house, smaller):
    made = house.launch.post(f"/runs/{smaller}/clone", {}).json()["config"]
    resampler = made["stages"]["resampler"]
    assert (resampler["batch_size"], resampler["accumulation"], made["gradient_checkpointing"]) == (12, 2, True)
    with house.reading() as session:
        assert session.get_one(StageRun, 3).overrides is None, "it is what the clone was asked for"
    form = house.browser.get(f"/runs/new?from={smaller}").text
    assert f"With what it has needed since it ran out of memory (resampler: {CHANGED})." in form
    command = look(house, smaller, "?tab=config").piece("config").text
    assert all(words in command for words in ("resampler.batch_size=12", "resampler.accumulation=2", "gradient_checkpointing=true"))


def test_settings_that_stages_share_are_not_told_of_a_run_that_never_ran_out(house):
    run = house.submit(name="vlm")["id"]
    assert "ran out of memory" not in look(house, run, "?tab=config").text
    assert "ran out of memory" not in house.browser.get(f"/runs/new?from={run}").text
