"""What the charts of a run page ask for, as JSON."""

import math

import pytest

from panollava.events import Metric, StageEvent

COLUMNS = ["first_step", "last_step", "first_t", "last_t", "min", "max", "last", "count"]


@pytest.fixture
def at_work(house):
    run = house.submit()
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"))
    return run["id"], work


def told(values, t=1e9, steps_per_epoch=2):
    return [Metric(t=t + step, step=step, epoch=step / steps_per_epoch, values={"train_loss": value}) for step, value in enumerate(values, 1)]


def test_a_smoothed_line_has_one_more_column_and_its_count(house, at_work):
    run_id, work = at_work
    work.say(*told([math.nan, 4.0, 2.0, math.nan]))
    plain, smoothed = (house.read.get(f"/runs/{run_id}/metrics", **asked).json() for asked in ({}, {"smooth": 0.5}))
    buckets = {
        "first_step": [1, 2, 3, 4], "last_step": [1, 2, 3, 4], "first_t": [1e9 + step for step in (1, 2, 3, 4)],
        "last_t": [1e9 + step for step in (1, 2, 3, 4)], "min": ["NaN", 4.0, 2.0, "NaN"], "max": ["NaN", 4.0, 2.0, "NaN"],
        "last": ["NaN", 4.0, 2.0, "NaN"], "count": [1, 1, 1, 1],
    }  # fmt: skip
    line = {"name": "train_loss", "stage": "resampler", "job_id": work.job_id, "attempt": 1, "points": 4, "steps_per_epoch": 2.0}
    assert plain == [{**line, "ema_count": None, "buckets": buckets}]
    ema = smoothed[0]["buckets"].pop("ema")
    assert smoothed == [{**line, "ema_count": 2, "buckets": buckets}]
    assert ema == ["NaN", 4.0, pytest.approx(8 / 3), pytest.approx(8 / 3)]
    assert house.read.get(f"/runs/{run_id}/metrics", smooth=0).json() == plain


def test_every_column_is_as_long_as_the_others(house, at_work):
    run_id, work = at_work
    work.say(*told([1 / step for step in range(1, 1_500)]))
    (line,) = house.read.get(f"/runs/{run_id}/metrics", smooth=0.9, points=20, **{"from": 300, "to": 900}).json()
    assert list(line["buckets"]) == [*COLUMNS, "ema"]
    assert {len(column) for column in line["buckets"].values()} == {len(line["buckets"]["last"])}
    assert 20 <= len(line["buckets"]["last"]) <= 42
    assert line["ema_count"] == line["buckets"]["last_step"][-1]


@pytest.mark.parametrize("asked", [{"smooth": 1}, {"smooth": -0.1}, {"smooth": "nan"}, {"x": "wall"}])
def test_what_cannot_be_drawn_is_refused(house, at_work, asked):
    assert house.read.get(f"/runs/{at_work[0]}/metrics", **asked).status_code == 422


def test_a_chart_over_epochs_is_zoomed_in_epochs(house, at_work):
    run_id, work = at_work
    work.say(*told([1.0] * 40, steps_per_epoch=10))
    (line,) = house.read.get(f"/runs/{run_id}/metrics", x="epoch", **{"from": 1.5, "to": 2}).json()
    assert (line["steps_per_epoch"], line["buckets"]["last_step"]) == (10.0, list(range(14, 22)))


def test_a_picker_finds_every_series_with_its_newest_value(house, at_work):
    run_id, work = at_work
    assert house.read.get(f"/runs/{run_id}/metrics/names").json() == []
    work.say(*told([3.0, math.nan]), Metric(step=2, epoch=1.0, values={"val_loss": 2.5, "grad_norm": math.inf}))
    of_work = {"stage": "resampler", "job_id": work.job_id, "attempt": 1}
    assert house.read.get(f"/runs/{run_id}/metrics/names").json() == [
        {"name": "grad_norm", **of_work, "points": 1, "last_step": 2, "last_value": "Infinity"},
        {"name": "train_loss", **of_work, "points": 2, "last_step": 2, "last_value": "NaN"},
        {"name": "val_loss", **of_work, "points": 1, "last_step": 2, "last_value": 2.5},
    ]
    assert house.read.get("/runs/99/metrics/names").status_code == 404
