"""A stage that ran out of memory has a button that tries it again with half its micro-batches."""

import pytest

from app.models import JobStatus
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
    assert "Retry with accumulation 2" in page.text
    post(house, f"/runs/{starved}/stages/resampler/retry-lighter")
    assert house.read.get(f"/runs/{starved}").json()["status"] == "queued"
    assert "to be tried again with settings that need less memory" in look(house, starved, "?tab=timeline").text


def test_by_api_it_is_a_conflict_where_nothing_is_suggested(house, starved):
    assert house.launch.post(f"/runs/{starved}/stages/resampler/retry-lighter").status_code == 202
    again = house.launch.post(f"/runs/{starved}/stages/resampler/retry-lighter")
    assert (again.status_code, "Nothing is known" in again.json()["detail"]) == (409, True)
