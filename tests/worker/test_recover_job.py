"""Jobs whose worker died: what their trainers wrote is brought in, the trainers are stopped, the next attempt continues."""

import os
import threading
from datetime import timedelta

import pytest
from sqlmodel import select

from app.models import Attempt, Job, Worker
from panollava.events import EVENTS_FILE
from tests.worker.conftest import IMPATIENT
from worker import process, roster
from worker.process import Identity

LOST_AND_TRAINED = ["queued", "starting", "running", "lost", "queued", "starting", "running", "succeeded"]


@pytest.fixture
def dead_worker(house):
    """A claimed job with a live trainer that nobody follows, as kill -9 of its worker leaves it."""

    def begin(script: str, steps: int = 1000, **row) -> int:
        job_id = house.submit(script, steps=steps)
        work = house.work("dead")
        claimed = work._claim()
        child = work._start(claimed)
        work._introduce(claimed, child)
        threading.Thread(target=child._process.wait, daemon=True).start()  # init would reap it
        with house.sessions.writing.begin() as session:
            session.exec(select(Worker).where(Worker.name == "dead")).one().sqlmodel_update({"pid_started": 1.0} | row)
        house.until((house.directory(job_id) / EVENTS_FILE).exists, "the trainer has begun")
        return job_id

    return begin


def age(house, job_id: int, seconds: float) -> None:
    """Nobody has been heard of for so long."""
    with house.sessions.writing.begin() as session:
        session.get_one(Job, job_id).heartbeat_at -= timedelta(seconds=seconds)


def test_a_trainer_that_outlived_its_worker_is_stopped_and_the_next_attempt_continues_where_it_saved(house, dead_worker):
    job_id = dead_worker("slow")
    (trainer,) = house.trainers()
    house.until((house.directory(job_id) / "checkpoints" / "step=000010.ckpt").exists, "a checkpoint is on disk")
    work = house.work()
    work.recovery.others()
    assert not trainer.alive
    assert house.states(job_id) == ["queued", "starting", "running", "lost", "queued"]
    work.take()
    assert house.states(job_id) == LOST_AND_TRAINED
    assert house.attempts(job_id)[1].resumed_step == house.written_points(job_id)[-1][0]
    house.assert_nothing_lost(job_id)


def test_a_trainer_that_finished_without_its_worker_has_succeeded(house, dead_worker):
    job_id = dead_worker("steady", steps=10)
    house.until(lambda: not house.trainers()[0].alive, "the trainer has ended")
    house.work().recovery.others()
    assert house.states(job_id) == ["queued", "starting", "running", "succeeded"]
    assert len(house.checkpoints(job_id)) == 5
    house.assert_nothing_lost(job_id)


def test_a_trainer_that_refused_its_input_is_not_tried_again(house, dead_worker):
    job_id = dead_worker("bad-input")
    house.until(lambda: not house.trainers()[0].alive, "the trainer has ended")
    house.work().recovery.others()
    assert (house.job(job_id).status, house.job(job_id).reason) == ("failed", "bad_input")


def test_a_job_that_was_to_stop_when_its_worker_died_is_stopped(house, dead_worker):
    job_id = dead_worker("slow")
    house.stop(job_id)
    house.work().recovery.others()
    assert house.job(job_id).status == "stopped"


def test_a_trainer_that_does_not_follow_the_stop_is_killed(house, dead_worker):
    job_id = dead_worker("deaf", steps=100_000)
    house.work(patience=IMPATIENT).recovery.others()
    assert not house.trainers()[0].alive
    assert house.job(job_id).status == "queued"


def test_a_job_whose_worker_lives_is_left_alone(house, dead_worker):
    job_id = dead_worker("slow", pid_started=Identity.of(os.getpid()).started)
    age(house, job_id, 3600)
    house.work().recovery.others()
    assert house.job(job_id).attempt == 1 and house.trainers()[0].alive


def test_a_worker_elsewhere_is_given_up_when_it_stays_silent(house, dead_worker):
    job_id = dead_worker("slow", boot_id="another machine")
    recovery = house.work().recovery
    recovery.others()
    assert house.job(job_id).attempt == 1
    age(house, job_id, 31)
    recovery.others()
    assert house.job(job_id).status in ("starting", "running"), "it may only just be back"
    recovery.confirm_seconds = 0
    recovery.others()
    assert house.job(job_id).status == "queued"


def test_a_worker_elsewhere_that_is_heard_again_keeps_its_job(house, dead_worker):
    job_id = dead_worker("slow", boot_id="another machine")
    recovery = house.work().recovery
    age(house, job_id, 60)
    recovery.others()
    age(house, job_id, -20)
    recovery.others()
    assert house.job(job_id).status in ("starting", "running")


def test_two_that_recover_at_once_lose_the_job_once(house, dead_worker):
    job_id = dead_worker("slow")
    threads = [threading.Thread(target=house.work(name).recovery.others) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert house.states(job_id).count("lost") == 1
    assert house.job(job_id).status == "queued"
    house.assert_nothing_lost(job_id)


def test_a_worker_finds_what_its_predecessor_of_the_same_name_left(house, dead_worker):
    job_id = dead_worker("slow")
    house.work("dead").take()
    assert house.states(job_id) == LOST_AND_TRAINED


def test_a_job_that_is_lost_without_progress_too_often_fails(house, dead_worker):
    job_id = dead_worker("hangs")
    with house.sessions.writing.begin() as session:
        session.get_one(Job, job_id).max_attempts = 1
    house.work(patience=IMPATIENT).recovery.others()
    assert house.states(job_id)[-2:] == ["lost", "failed"]


def test_a_trainer_whose_attempt_was_given_up_elsewhere_is_killed(house, dead_worker):
    job_id = dead_worker("slow", boot_id="another machine")
    age(house, job_id, 60)
    with house.sessions.writing.begin() as session:  # this machine's recovery, as seen from another one
        attempt = session.exec(select(Attempt).where(Attempt.job_id == job_id)).one()
        attempt.boot_id = "another machine"
    recovery = house.work().recovery
    recovery.confirm_seconds = 0
    recovery.others()
    assert house.trainers()[0].pid and house.job(job_id).status == "queued"
    with house.sessions.writing.begin() as session:
        session.exec(select(Attempt).where(Attempt.job_id == job_id)).one().boot_id = process.boot_id()
    (stray,) = house.trainers()
    assert stray.alive
    recovery.others()
    house.until(lambda: not stray.alive, "the stray is gone")


def test_a_name_is_not_shared_by_two_living_workers(house):
    house.work("one")
    other = Identity.of(os.getppid())
    with house.sessions.writing.begin() as session:
        session.exec(select(Worker)).one().sqlmodel_update({"pid": other.pid, "pid_started": other.started})
    with pytest.raises(roster.NameTaken, match=f"pid {other.pid}"):
        house.work("one")
