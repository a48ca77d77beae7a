"""A person continues what failed or was stopped."""

from pathlib import Path

import pytest
from sqlmodel import select

from app.errors import Conflict
from app.jobs.finish import finish
from app.models import Checkpoint, JobStatus
from app.runs import service as runs


def stopped(house, session, *steps):
    """A run whose first attempt has saved at these steps and was stopped."""
    job, attempt = house.running(session)
    house.tell(session, job, attempt, *(house.saved(attempt, step) for step in steps))
    runs.stop(session, runs.get(session, job.run_id), "ann")
    finish(session, job.id, 1, JobStatus.stopped, actor="one", reason="stopped")
    return job, attempt


def test_it_continues_from_the_last_good_checkpoint(house, session):
    job, attempt = stopped(house, session, 10, 20)
    runs.resume(session, runs.get(session, job.run_id), "ann")
    assert job.resume_from == f"{attempt.directory}/checkpoints/step=000020.ckpt"
    assert (job.status, job.reason, job.finished_at, job.stop_requested_at) == ("queued", None, None, None)
    job, again = house.claim(session)
    assert (again.number, again.resumed_step) == (2, 20)
    assert again.directory.endswith("attempt-2")


def test_a_torn_checkpoint_is_passed_over(house, session):
    job, attempt = stopped(house, session, 10, 20)
    path = Path(attempt.directory, "checkpoints/step=000020.ckpt")
    path.write_bytes(path.read_bytes()[:-1])
    runs.resume(session, runs.get(session, job.run_id), "ann")
    assert job.resume_from.endswith("step=000010.ckpt")


def test_the_best_checkpoint_is_not_one_to_continue_from(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 5, "last", "last.ckpt"), house.saved(attempt, 9, "best", "best.ckpt"))
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="exit_code")
    runs.resume(session, runs.get(session, job.run_id), "ann")
    assert job.resume_from.endswith("last.ckpt")


def test_without_a_checkpoint_the_stage_starts_again(house, session):
    job, _attempt = stopped(house, session)
    runs.resume(session, runs.get(session, job.run_id), "ann")
    assert (job.status, job.resume_from) == ("queued", None)


def test_a_checkpoint_of_an_earlier_attempt_still_counts(house, session):
    job, first = stopped(house, session, 10)
    run = runs.get(session, job.run_id)
    runs.resume(session, run, "ann")
    house.claim(session)
    finish(session, job.id, 2, JobStatus.failed, actor="one", reason="exit_code")
    runs.resume(session, run, "ann")
    assert job.resume_from.startswith(first.directory)
    assert session.exec(select(Checkpoint.attempt)).all() == [1]


def test_a_run_at_work_is_not_resumed_and_says_what_it_is_at(house, session):
    job, _attempt = house.running(session)
    with pytest.raises(Conflict, match="Run 1 is at work already: stage resampler is running, attempt 1"):
        runs.resume(session, runs.get(session, job.run_id), "ann")


def test_a_run_in_the_queue_is_not_resumed_and_says_why_it_waits(house, session):
    run = house.create(session)
    with pytest.raises(Conflict, match="Run 1 is queued already: stage resampler waits, needs 1 device; no worker serves x1"):
        runs.resume(session, run, "ann")


def test_pressing_resume_twice_queues_the_stage_once(house, session):
    job, _attempt = stopped(house, session)
    run = runs.get(session, job.run_id)
    runs.resume(session, run, "ann")
    with pytest.raises(Conflict, match="queued already"):
        runs.resume(session, run, "bob")
    assert house.states(session, job).count("queued") == 2
