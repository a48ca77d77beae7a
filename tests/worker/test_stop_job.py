"""A person's wishes to a running trainer: save, stop; and a worker that is told to leave."""

import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.jobs import service as jobs
from panollava.events import SAVE_FILE
from panollava.rundir import CHECKPOINTS
from tests.worker.conftest import IMPATIENT, NOBODY
from worker import follow
from worker.follow import Claimed, Follower


@contextmanager
def working(house, work):
    """The worker's hands, busy in a thread."""
    thread = threading.Thread(target=work.take)
    thread.start()
    try:
        yield
        thread.join(20)
        assert not thread.is_alive(), house.story()
    finally:
        work.leaving.set()  # a test that has failed must end too


def test_a_running_job_that_is_stopped_saves_first_and_resumes_there(house):
    job_id = house.submit("slow", steps=1000)
    with working(house, house.work()):
        house.wait(job_id, "running")
        house.stop(job_id)
    assert house.states(job_id) == ["queued", "starting", "running", "stopping", "stopped"]
    last = house.checkpoints(job_id)[-1]
    assert last.kind == "last"
    house.do(jobs.retry, job_id, "a person")
    assert house.job(job_id).resume_from == last.path


def test_a_queued_job_that_is_stopped_is_never_started(house):
    job_id = house.submit("steady")
    house.stop(job_id)
    house.work().take()
    assert house.states(job_id) == ["queued", "stopped"]


def test_a_trainer_that_ignores_the_stop_is_killed_and_the_job_says_so(house):
    job_id = house.submit("deaf", steps=100_000)
    with working(house, house.work(patience=IMPATIENT)):
        house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
        house.stop(job_id)
    job = house.job(job_id)
    assert house.states(job_id) == ["queued", "starting", "running", "stopping", "stopped"]
    last = max(each.step for each in house.checkpoints(job_id))
    assert (job.reason, job.detail) == ("killed", f"It had not ended in time and was killed. Saved at step {last}: it goes on from there.")
    assert house.attempts(job_id)[0].exit_code == -9


def test_one_that_is_killed_before_its_first_checkpoint_says_that_nothing_was_saved(house):
    job_id = house.submit("hangs")
    with working(house, house.work(patience=IMPATIENT)):
        house.wait(job_id, "running")
        house.stop(job_id)
    assert house.job(job_id).detail == "It had not ended in time and was killed. Nothing was saved: it would begin at its start."


def test_a_trainer_that_dies_while_it_is_to_stop_leaves_a_job_that_says_what_was_saved(house):
    job_id = house.submit("deaf", steps=100_000)
    with working(house, house.work()):
        house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
        house.stop(job_id)
        house.kill_trainer()
    job, last = house.job(job_id), max(each.step for each in house.checkpoints(job_id))
    assert (job.status, job.reason) == ("stopped", "lost_while_stopping")
    assert job.detail.startswith(f"Saved at step {last}: it goes on from there.\nThe trainer was killed by SIGKILL")


def test_a_checkpoint_that_a_person_asks_for_is_saved_once(house):
    job_id = house.submit("slow", steps=1000)
    with working(house, house.work()):
        house.wait(job_id, "running")
        house.do(jobs.request_save, job_id, "a person")
        house.until(lambda: [row for row in house.checkpoints(job_id) if row.path.endswith("asked.ckpt")], "the checkpoint is there")
        assert not (Path(house.attempts(job_id)[0].directory) / SAVE_FILE).exists()
        assert house.job(job_id).save_requested_at is None
        house.stop(job_id)


def test_a_checkpoint_that_was_asked_for_is_saved_although_its_worker_dies_before_it_has_written_that_it_saw_the_wish(
    house, dead_worker, monkeypatch
):
    job_id = dead_worker("slow", steps=100_000)
    house.do(jobs.request_save, job_id, "a person")
    (attempt,) = house.attempts(job_id)
    follower = Follower(house.sessions, Claimed.of(attempt), NOBODY)
    monkeypatch.setattr(follow, "take_in", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        follower.round()
    assert house.job(job_id).save_requested_at, "who comes next sees the wish"
    house.until((Path(attempt.directory) / CHECKPOINTS / "asked.ckpt").exists, "the trainer has saved")


def test_a_worker_that_leaves_queues_its_job_again_and_the_next_one_continues(house):
    job_id = house.submit("slow", steps=1000)
    leaver = house.work()
    with working(house, leaver):
        house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
        leaver.leaving.set()
    assert house.states(job_id) == ["queued", "starting", "running", "stopping", "stopped", "queued"]
    leaver.take()
    assert house.job(job_id).status == "queued"
    house.work("two").take()
    assert house.states(job_id)[-3:] == ["starting", "running", "succeeded"]
    assert house.attempts(job_id)[1].resumed_step >= 5


def test_a_job_that_a_person_stops_while_its_worker_leaves_stays_stopped(house):
    job_id = house.submit("slow", steps=100_000)
    leaver = house.work()
    with working(house, leaver):
        house.wait(job_id, "running")
        house.stop(job_id)
        leaver.leaving.set()
    assert house.states(job_id)[-2:] == ["stopping", "stopped"]
