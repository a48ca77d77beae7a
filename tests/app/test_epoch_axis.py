"""Charts over epochs: the trainer says the epoch of its steps, and a step over the steps of an epoch is the epoch."""

import math

import pytest

from app.jobs import service as jobs
from app.metrics import service as metrics
from panollava.events import Metric, StageEvent


def train(house, session, job, attempt, steps, steps_per_epoch, batch=10):
    """Tell of these steps, some at a time, as a trainer does."""
    told = [Metric(step=step, epoch=step / steps_per_epoch, values={"train_loss": 1 / step}) for step in steps]
    for start in range(0, len(told), batch):
        house.tell(session, job, attempt, *told[start : start + batch])


@pytest.mark.parametrize("steps_per_epoch", [1, 7, 49, 100, 999_983])
def test_a_line_says_how_many_steps_an_epoch_has(house, session, steps_per_epoch):
    job, attempt = house.running(session)
    train(house, session, job, attempt, range(1, 301), steps_per_epoch)
    (line,) = metrics.query(session, job.run_id)
    assert (line.steps_per_epoch, line.name, line.points) == (steps_per_epoch, "train_loss", 300)


@pytest.mark.parametrize(
    ("start", "end", "steps"), [(1, 2, range(99, 202)), (0.07, 0.29, range(6, 31)), (None, 0.5, range(1, 52)), (2.5, None, range(249, 301))]
)
def test_a_chart_is_cut_in_epochs(house, session, start, end, steps):
    job, attempt = house.running(session)
    train(house, session, job, attempt, range(1, 301), 100)
    (line,) = metrics.query(session, job.run_id, x="epoch", from_=start, to=end)
    assert line.buckets["last_step"].tolist() == list(steps)  # one step more on each side


def test_each_attempt_has_epochs_of_its_own_length(house, session):
    job, attempt = house.running(session)
    train(house, session, job, attempt, range(1, 101), 50)
    jobs.lose(session, job, "sweep")
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, StageEvent(name="resampler", status="resumed", step=60))
    train(house, session, job, attempt, range(61, 101), 25)
    older, newer = metrics.query(session, job.run_id, x="epoch", from_=1.1, to=3)
    assert (older.steps_per_epoch, older.buckets["last_step"].tolist()) == (50, list(range(54, 61)))
    assert (newer.steps_per_epoch, newer.buckets["last_step"].tolist()) == (25, list(range(61, 77)))


@pytest.mark.parametrize("epoch", [0.0, math.nan, math.inf, -1.0])
def test_who_tells_no_epoch_is_on_no_axis_of_epochs(house, session, epoch):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, Metric(step=5, epoch=epoch, values={"train_loss": 1.0}), Metric(step=0, epoch=0.0, values={"train_loss": 1.0}))
    for asked in ({}, {"from_": 0, "to": 1}, {"smooth": 0.9}):
        (line,) = metrics.query(session, job.run_id, x="epoch", **asked)
        assert (line.steps_per_epoch, len(line.buckets), line.points) == (None, 0, 2)
    assert len(metrics.query(session, job.run_id)[0].buckets) == 2
