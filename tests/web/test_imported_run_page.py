"""What the page and the API say of a run that a terminal trained."""

import pytest

from app.housekeeping.importing import Importer
from panollava import rundir
from panollava.config import RunConfig
from panollava.events import EventWriter, Metric, StageEvent
from tests.web.test_run_page import look


@pytest.fixture
def directory(house):
    directory = house.settings.home / "work" / "runs" / "vlm_resampler"
    config = RunConfig(stage="resampler", csv_train=house.table, csv_val=house.table)
    rundir.write_whole(directory / "config.json", config.model_dump_json())
    say(directory, StageEvent(name="resampler", status="started"), Metric(step=1, epoch=0.1, values={"train_loss": 2.0}))
    return directory


def say(directory, *told):
    writer = EventWriter(directory / "events.jsonl")
    for event in told:
        writer.write(event)
    writer.close()


def imported(house, directory):
    return Importer(house.writing, house.settings).bring_in(str(directory))[0].run_id


@pytest.mark.parametrize("tab", ["charts", "config", "checkpoints", "samples", "timeline"])
def test_every_part_of_its_page_can_be_read(house, directory, tab):
    assert "imported from" in look(house, imported(house, directory), f"?tab={tab}").text


def test_one_at_work_says_how_to_hear_more_of_it_and_offers_no_stop(house, directory):
    run_id = imported(house, directory)
    seen = look(house, run_id)
    assert f"panollava import {directory}" in seen.text and "A worker of its machine" not in seen.text
    assert seen.actions == []
    assert house.launch.post(f"/runs/{run_id}/stop").status_code == 409


def test_one_that_failed_can_be_resumed_and_the_api_says_where_it_came_from(house, directory):
    say(directory, StageEvent(name="resampler", status="failed", reason="Diverged", detail="NaN"))
    run_id = imported(house, directory)
    assert "resume" in look(house, run_id).actions
    run = house.read.get(f"/runs/{run_id}").json()
    assert (run["status"], run["imported_from"], run["created_by"]) == ("failed", str(directory.parent / "vlm"), "import")
    assert house.launch.post(f"/runs/{run_id}/resume").status_code == 202
    assert house.claim().directory == directory / "attempt-2"
