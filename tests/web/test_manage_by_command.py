"""A run in hand, from a terminal elsewhere."""

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.client import ApiError
from app.models import JobStatus
from tests.web.test_manage_run import train
from tests.web.test_run_page import begun, saved


@pytest.fixture
def runs(house, served):
    """`panollava runs ...` against a real server."""

    def run(*arguments, answer=None):
        options = ["runs", "--url", served.url, "--token", house.launch.token]
        return CliRunner().invoke(cli, [*options, *map(str, arguments)], input=answer)

    return run


def test_a_run_is_forked_cloned_retried_past_its_gate_archived_and_deleted(house, runs):
    first = house.submit(stage="resampler,finetune", stages={"finetune": {"gate_below": 0.5}})["id"]
    train(house)
    assert runs("open-gate", first, "finetune").exit_code == 0
    begun(house, "finetune").end(JobStatus.failed)
    assert runs("retry", first).exit_code == 0
    assert runs("retry", first, "--stage", "finetune").exit_code == 1  # it is queued
    work = begun(house, "finetune")
    work.say(saved(work, 3, "step"))
    work.end(JobStatus.failed)
    assert runs("retry", first, "--stage", "finetune", "--from-start").exit_code == 0
    train(house, stage="finetune")
    forked = int(runs("fork", first, "--checkpoint", 1, "--stage", "finetune", "--set", "finetune.lr=0.25").stdout)
    cloned = int(runs("clone", first, "--set", "seed=9").output)
    told = house.read.get(f"/runs/{forked}").json()
    assert (told["parent_id"], told["config"]["stage"], told["config"]["stages"]["finetune"]["lr"]) == (first, ["finetune"], 0.25)
    assert house.read.get(f"/runs/{cloned}").json()["config"]["seed"] == 9
    assert runs("archive", first).exit_code == 0
    assert runs("delete", first, answer="n\n").exit_code == 1
    assert house.read.get(f"/runs/{first}").status_code == 200
    refused = runs("delete", first, "--yes")
    assert isinstance(refused.exception, ApiError) or f"run {forked}" in refused.output
    assert runs("delete", first, "--yes", "--force").exit_code == 0
    assert house.read.get(f"/runs/{first}").status_code == 404


def test_whatever_begins_a_stage_says_that_its_gate_is_closed_why_and_what_opens_it(house, runs):
    parent = house.submit(stage="resampler", stages={"finetune": {"gate_below": 2.1}})["id"]
    train(house, 2.0)
    fork = int(runs("fork", parent).stdout)
    train(house, stage="finetune")
    assert runs("retry", parent, "--stage", "resampler").stderr == ""
    train(house, 2.34)
    for words in (["retry", fork, "--stage", "finetune"], ["fork", parent], ["clone", fork, "--set", f"init_from={best(house, parent)}"]):
        told = runs(*words)
        gated = int(told.stdout or fork)
        said = f"Stage finetune of run {gated} does not start: resampler reached val_loss 2.34, the gate asks for below 2.1."
        assert told.stderr == f"{said} To start it nevertheless: panollava runs open-gate {gated} finetune\n"
        assert runs("open-gate", gated, "finetune").exit_code == 0
        assert house.read.get(f"/runs/{gated}").json()["status"] == "queued"


def best(house, run_id):
    """Where the best checkpoint lies that the run's first stage has come to last."""
    return house.read.get(f"/runs/{run_id}/checkpoints").json()["items"][0]["path"]


def test_a_stop_says_what_happens_and_when_it_is_waited_for_what_was_saved(house, runs, monkeypatch):
    first, second = house.submit()["id"], house.submit()["id"]
    begun(house)
    assert "resampler: stopping. It saves a checkpoint at its next step" in runs("stop", first).output
    work = begun(house)
    work.say(saved(work, 12, "step"))
    monkeypatch.setattr("app.remote.sleep", lambda _seconds: work.end(JobStatus.stopped))
    assert runs("stop", second, "--wait").output == "resampler: stopped. Saved at step 12: it goes on from there.\n"


def test_one_stage_is_named_where_it_matters_which(house, runs):
    first = house.submit(stage="resampler,finetune")["id"]
    train(house)
    assert runs("stop", first, "--stage", "resampler").exit_code == 1
    begun(house, "finetune")
    assert runs("save", first, "--stage", "finetune").exit_code == 0
    assert runs("stop", first, "--stage", "finetune").output.startswith("finetune: stopping.")
    cloned, forked = (int(runs(*asked).output) for asked in (("clone", first, "--stage", "finetune"), ("fork", first, "--from-stage", "resampler")))
    assert [house.read.get(f"/runs/{each}").json()["config"]["stage"] for each in (cloned, forked)] == [["finetune"], ["finetune"]]
    assert runs("stop", cloned, "--stage", "finetune").output.startswith("finetune: stopped.")
    assert runs("resume", cloned, "--stage", "finetune").exit_code == 0


def test_what_makes_no_sense_is_refused_before_anything_is_asked(runs):
    assert runs("retry", 1, "--from-start").exit_code == 2
    assert "is not NAME=VALUE" in runs("clone", 1, "--set", "seed").output
