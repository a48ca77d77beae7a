"""What a run has to show: metrics, progress, checkpoints."""

import math

import pytest

from panollava.events import CheckpointSaved, Metric, Progress, StageEvent


@pytest.fixture
def at_work(house):
    run = house.submit()
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"))
    return run["id"], work


def test_metrics_come_in_as_many_buckets_as_were_asked_for(house, at_work):
    run_id, work = at_work
    work.say(*(Metric(step=step, epoch=step / 100, values={"train_loss": 1 / step, "lr": 0.1}) for step in range(1, 1001)))
    loss, lr = sorted(house.read.get(f"/runs/{run_id}/metrics", points=10).json(), key=lambda line: line["name"], reverse=True)
    assert (loss["name"], loss["stage"], loss["attempt"], loss["points"], lr["name"]) == ("train_loss", "resampler", 1, 1000, "lr")
    buckets = loss["buckets"]
    assert 10 <= len(buckets["min"]) <= 20
    assert (sum(buckets["count"]), buckets["max"][0], buckets["last"][-1]) == (1000, 1.0, 1 / 1000)


def test_metrics_can_be_narrowed_to_names_a_stage_and_a_range(house, at_work):
    run_id, work = at_work
    work.say(*(Metric(step=step, epoch=0, values={"train_loss": step, "val_loss": step, "lr": 0.1}) for step in range(100)))
    lines = house.read.get(f"/runs/{run_id}/metrics", **{"names": "train_loss,val_loss", "from": 10, "to": 20}).json()
    assert [(line["name"], line["buckets"]["last"]) for line in lines] == [(name, list(range(9, 22))) for name in ("train_loss", "val_loss")]
    assert house.read.get(f"/runs/{run_id}/metrics", stage="finetune").json() == []
    assert house.read.get(f"/runs/{run_id}/metrics", points=5001).status_code == 422


def test_a_value_that_is_no_number_arrives_as_what_it_is(house, at_work):
    run_id, work = at_work
    work.say(Metric(step=1, epoch=0, values={"train_loss": math.nan}), Metric(step=2, epoch=0, values={"train_loss": math.inf}))
    assert house.read.get(f"/runs/{run_id}/metrics").json()[0]["buckets"]["last"] == ["NaN", "Infinity"]


def test_progress_is_what_the_trainer_last_said(house, at_work):
    run_id, work = at_work
    work.say(Progress(done=1, total=9, unit="steps"), Progress(done=2, total=9, unit="steps", eta_seconds=3.5))
    progress = house.read.get(f"/runs/{run_id}").json()["stages"][0]["progress"]
    assert (progress["done"], progress["total"], progress["eta_seconds"]) == (2, 9, 3.5)


def test_a_checkpoint_is_listed_with_its_run_and_alone(house, at_work):
    run_id, work = at_work
    work.say(CheckpointSaved(path="checkpoints/last.ckpt", kind="last", step=5, epoch=0.5, metrics={"val_loss": 2.0}, sha256="ab", size=3))
    checkpoint = house.read.get(f"/runs/{run_id}/checkpoints").json()["items"][0]
    assert (checkpoint["kind"], checkpoint["step"], checkpoint["metrics"]) == ("last", 5, {"val_loss": 2.0})
    assert checkpoint["path"] == str(work.directory / "checkpoints" / "last.ckpt")
    assert house.read.get(f"/checkpoints/{checkpoint['id']}").json() == checkpoint
    assert house.read.get("/checkpoints", run_id=run_id + 1).json()["items"] == []
    assert house.read.get("/checkpoints/99").json()["detail"] == "There is no checkpoint 99."
