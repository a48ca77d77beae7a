"""A person stops a run."""

import pytest
from sqlmodel import select

from app.errors import Conflict
from app.evaluations import service as evaluations
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Job, JobStatus
from app.runs import service as runs
from panollava.config import EvaluateConfig


def test_a_queued_run_is_stopped_at_once(house, session):
    run = house.create(session)
    runs.stop(session, run, "ann")
    assert runs.status(session, run) == "stopped"


def test_a_running_stage_is_asked_to_save_and_stop(house, session):
    job, _attempt = house.running(session)
    runs.stop(session, runs.get(session, job.run_id), "ann")
    assert job.status is JobStatus.stopping
    finish(session, job.id, 1, JobStatus.stopped, actor="one", reason="stopped", exit_code=75)
    assert house.states(session, job) == ["queued", "starting", "running", "stopping", "stopped"]
    assert job.reason == "stopped"


def test_stopping_twice_is_stopping_once(house, session):
    job, _attempt = house.running(session)
    run = runs.get(session, job.run_id)
    runs.stop(session, run, "ann")
    runs.stop(session, run, "bob")
    assert house.states(session, job)[-2:] == ["running", "stopping"]


def test_a_run_that_has_ended_cannot_be_stopped(house, session):
    job, _attempt = house.running(session)
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="exit_code")
    with pytest.raises(Conflict, match="Run 1 has failed; there is nothing to stop"):
        runs.stop(session, runs.get(session, job.run_id), "ann")


def test_a_stage_that_succeeds_while_it_is_being_stopped_starts_no_other(house, session):
    job, attempt = house.running(session, stage="resampler,finetune")
    run = runs.get(session, job.run_id)
    runs.stop(session, run, "ann")
    house.tell(session, job, attempt, best := house.saved(attempt, 5, "epoch"))
    assert finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    assert [stage.status for stage in runs.state(session, run).stages] == ["succeeded", "stopped"]
    runs.resume(session, run, "ann")
    assert [stage.status for stage in runs.state(session, run).stages] == ["succeeded", "queued"]


def test_a_save_is_asked_for_and_taken_once(house, session):
    job, _attempt = house.running(session)
    runs.save(session, runs.get(session, job.run_id), "ann")
    assert jobs.take_save(session, job.id, 1)
    assert not jobs.take_save(session, job.id, 1)


def test_nothing_is_saved_of_a_run_that_waits(house, session):
    run = house.create(session)
    with pytest.raises(Conflict, match="is queued; there is nothing to save"):
        runs.save(session, run, "ann")
    assert session.get_one(Job, 1).save_requested_at is None


# what was saved


def test_a_stage_that_is_stopped_says_at_which_step_it_saved(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    runs.stop(session, runs.get(session, job.run_id), "ann")
    finish(session, job.id, 1, JobStatus.stopped, actor="one", reason="stopped")
    assert job.detail == "Saved at step 7: it goes on from there."


def test_one_that_is_stopped_while_it_waits_to_go_on_says_what_earlier_attempts_have_saved(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    jobs.lose(session, job, "sweep")
    runs.stop(session, runs.get(session, job.run_id), "ann")
    assert (job.reason, job.detail) == ("stop_requested", "Saved at step 7: it goes on from there.")


def test_one_that_fails_while_it_is_to_stop_says_it_below_its_error(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    runs.stop(session, runs.get(session, job.run_id), "ann")
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="OSError", detail="No space left on device")
    assert job.detail == "No space left on device\nSaved at step 7: it goes on from there."


def test_one_that_succeeds_before_it_hears_of_the_stop_says_nothing_of_it(house, session):
    job, attempt = house.running(session)
    best = house.saved(attempt, 7, "epoch")
    house.tell(session, job, attempt, best)
    runs.stop(session, runs.get(session, job.run_id), "ann")
    finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    assert (job.status, job.detail) == ("succeeded", None)


def test_an_evaluation_that_is_stopped_claims_no_checkpoint(house, session, checkpoint):
    evaluation = evaluations.create(
        session, EvaluateConfig(checkpoint=str(checkpoint), csv=str(house.root / "test.csv")), house.settings, actor="ann"
    )
    job = session.exec(select(Job).where(Job.evaluation_id == evaluation.id)).one()
    jobs.request_stop(session, job, "ann")
    assert (job.status, job.detail) == ("stopped", None)
