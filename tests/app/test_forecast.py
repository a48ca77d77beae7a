"""How long a stage will take is known from the same work done before, and from nothing else."""

from datetime import timedelta

import pytest

from app.jobs.finish import finish
from app.models import JobStatus
from app.runs.page.forecast import forecast
from app.runs.page.track import Leg, chain_left
from panollava.stages import Stage


def train(house, session, seconds, **config):
    """A run of stage resampler that took so long."""
    job, attempt = house.running(session, **config)
    house.tell(session, job, attempt, saved := house.saved(attempt, 5, "best", "best.ckpt"))
    assert finish(session, job.id, attempt.number, JobStatus.succeeded, actor="one", reason="succeeded", best=saved.path)
    session.refresh(job)
    job.started_at = job.finished_at - timedelta(seconds=seconds)
    session.add(job)
    session.flush()
    return job.run_id


def test_the_newest_run_that_did_the_same_work_tells(house, session):
    train(house, session, 100)
    newest = train(house, session, 60)
    found = forecast(session, house.create(session, "resampler,finetune"), Stage.resampler)
    assert (found.seconds, found.run_id) == (pytest.approx(60), newest)


@pytest.mark.parametrize(("more", "seconds"), [({}, 90), ({"max_steps": 10}, 60)])
def test_epochs_are_taken_into_account_unless_the_steps_are_counted(house, session, more, seconds):
    train(house, session, 60, stages={"resampler": {"epochs": 4} | more})
    asked = house.create(session, stages={"resampler": {"epochs": 6} | more})
    assert forecast(session, asked, Stage.resampler).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    "other", [{"overlap": 0.25}, {"stages": {"resampler": {"batch_size": 2}}}, {"num_workers": 3}, {"language_model": "another/one"}]
)
def test_other_work_tells_nothing(house, session, other):
    train(house, session, 60, **other)
    assert forecast(session, house.create(session), Stage.resampler) is None


def test_other_stages_and_failures_tell_nothing(house, session):
    job, attempt = house.running(session)
    finish(session, job.id, attempt.number, JobStatus.failed, actor="one", reason="failed")
    asked = house.create(session, "resampler,finetune")
    assert forecast(session, asked, Stage.resampler) is None
    assert forecast(session, asked, Stage.finetune) is None


class Told:
    """As much of a leg as the sum looks at."""

    def __init__(self, status, left=None, foreseen=None, is_current=False):
        self.told, self.left, self.is_current = self, left, is_current
        self.status = status
        self.foreseen = foreseen and type("Foreseen", (), {"seconds": foreseen})


@pytest.mark.parametrize(
    ("legs", "left"),
    [
        ([Told("succeeded"), Told("running", left=20.0, is_current=True), Told("waiting", foreseen=50.0)], 70.0),
        ([Told("running", left=20.0, is_current=True), Told("waiting")], None),
        ([Told("running", is_current=True), Told("waiting", foreseen=50.0)], None),
        ([Told("running", left=0.0, is_current=True), Told("waiting", foreseen=50.0)], 50.0),
        ([Told("succeeded"), Told("succeeded", is_current=True)], None),
    ],
)
def test_a_chain_is_foreseen_when_all_that_is_ahead_of_it_is(legs: list[Leg], left):
    assert chain_left(legs) == left
