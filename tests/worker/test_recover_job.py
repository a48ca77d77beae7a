"""Jobs whose worker and trainer are gone: what the trainers wrote is brought in, and the next attempt continues."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from app.jobs import service as jobs
from app.models import Attempt, Job, Worker
from tests.worker.conftest import ELSEWHERE
from tests.worker.test_database_away import unwritable
from worker import process, roster
from worker.follow import AWAY
from worker.lease import LEASE_SECONDS
from worker.orphans import Contact
from worker.process import KILL_AFTER, Identity
from worker.recover import TAKEOVER

BUSY = {"pid_started": Identity.of(os.getpid()).started}
"""A worker that lives, on this machine, and is not heard of."""
TAKEN_OVER = TAKEOVER.total_seconds()
LOST_AND_TRAINED = ["queued", "starting", "running", "lost", "queued", "starting", "running", "succeeded"]


def age(house, job_id: int, seconds: float) -> None:
    """Nobody has been heard of for so long."""
    with house.sessions.writing.begin() as session:
        session.get_one(Job, job_id).heartbeat_at -= timedelta(seconds=seconds)


def test_a_trainer_that_was_killed_with_its_worker_continues_at_its_last_checkpoint(house, dead_worker):
    job_id = dead_worker("slow")
    house.until(lambda: len(house.written_points(job_id)) >= 12, "two checkpoints were told of")
    house.kill_trainer()
    house.work().take()
    assert house.states(job_id) == LOST_AND_TRAINED
    assert house.attempts(job_id)[1].resumed_step >= 10
    house.assert_nothing_lost(job_id)


def test_a_worker_that_is_busy_queues_such_a_job_for_others(house, dead_worker):
    job_id = dead_worker("slow")
    house.kill_trainer()
    house.work().recovery.others()
    assert house.states(job_id)[-2:] == ["lost", "queued"]


def test_a_worker_that_died_before_its_trainer_began_leaves_a_job_that_is_queued_again(house):
    job_id = house.submit("steady")
    house.work("dead")._claim()
    house.bury("dead")
    house.work().take()
    assert house.states(job_id) == ["queued", "starting", "lost", "queued", "starting", "running", "succeeded"]


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


def test_a_job_that_was_to_stop_when_both_died_is_stopped(house, dead_worker):
    job_id = dead_worker("slow")
    house.stop(job_id)
    house.kill_trainer()
    house.work().recovery.others()
    assert house.job(job_id).status == "stopped"


def test_a_job_whose_worker_lives_is_left_alone(house, dead_worker):
    job_id = dead_worker("slow", **BUSY)
    age(house, job_id, 3600)
    house.work().take()
    assert house.job(job_id).attempt == 1 and house.trainers()[0].alive


# silence


@pytest.fixture
def in_touch():
    """A worker that has reached the database for long enough to judge others."""

    def make(house, name: str = "one"):
        work = house.work(name)
        work.recovery.contact = timedelta(0)
        return work

    return make


def test_a_job_elsewhere_is_taken_over_when_its_trainer_has_had_time_to_leave_and_not_before(house, dead_worker, in_touch):
    assert TAKEN_OVER == LEASE_SECONDS + KILL_AFTER == 180
    job_id = dead_worker("slow", **ELSEWHERE)
    recovery = in_touch(house).recovery
    age(house, job_id, TAKEN_OVER - 60)
    recovery.others()
    assert house.job(job_id).status in ("starting", "running")
    age(house, job_id, 61)
    recovery.others()
    assert house.states(job_id)[-2:] == ["lost", "queued"]


def test_after_an_outage_a_worker_waits_until_everybody_could_be_heard(house, dead_worker):
    job_id = dead_worker("slow", **ELSEWHERE)
    age(house, job_id, 3600)
    recovery = house.work().recovery
    recovery.others()
    assert house.job(job_id).status in ("starting", "running"), "the database may only just be back"
    age(house, job_id, -3600)
    recovery.contact = timedelta(0)
    recovery.others()
    assert house.job(job_id).status in ("starting", "running")


def test_nobody_is_called_silent_by_a_worker_to_whom_the_database_can_only_be_read(house, dead_worker):
    job_id = dead_worker("slow", steps=100_000, devices=["7"], **BUSY)
    recovery = house.work().recovery
    recovery.contact = timedelta(microseconds=1)
    recovery.others()
    age(house, job_id, 3600)
    with unwritable(house), pytest.raises(AWAY):
        recovery.others()
    recovery.others()
    assert house.trainers()[0].alive, "its worker has not had the time to say that it lives"
    recovery.others()
    assert not house.trainers()[0].alive


def test_a_trainer_whose_worker_was_heard_of_again_before_its_turn_came_is_not_killed(house, dead_worker, in_touch):
    job_id = dead_worker("slow", steps=100_000, devices=["7"], **BUSY)
    age(house, job_id, 3600)
    recovery = in_touch(house).recovery
    seen = recovery._lost()
    with house.sessions.writing.begin() as session:
        assert jobs.heartbeat(session, job_id, 1)
    recovery._recover(seen)
    assert house.trainers()[0].alive and house.job(job_id).attempt == 1


def test_a_trainer_that_a_kill_does_not_end_holds_up_no_other_job(house, dead_worker, in_touch, monkeypatch):
    stuck = dead_worker("slow", steps=100_000, devices=["7"], **BUSY)
    age(house, stuck, 3600)
    other = house.submit("steady")
    house.work("other")._claim()
    house.bury("other")
    work = in_touch(house)
    work.recovery.death = 0.1
    with monkeypatch.context() as patch:
        patch.setattr(Identity, "_kill_group", lambda self: None)
        work.recovery.others()
    assert house.trainers()[0].alive and house.job(stuck).attempt == 1
    assert house.states(other)[-2:] == ["lost", "queued"]
    work.recovery.others()
    assert house.states(stuck)[-2:] == ["lost", "queued"]


def test_a_stray_that_may_not_be_killed_holds_up_no_other_job(house, dead_worker, in_touch, monkeypatch, caplog):
    gone = dead_worker("slow", devices=["0", "1"], **ELSEWHERE)
    age(house, gone, TAKEN_OVER + 1)
    recovery = in_touch(house).recovery
    recovery.others()
    with house.sessions.writing.begin() as session:
        session.exec(select(Attempt).where(Attempt.job_id == gone)).one().boot_id = process.boot_id()
    other = house.submit("steady")
    house.work("other")._claim()
    house.bury("other")

    def refuse(self):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Identity, "kill", refuse)
        recovery.others()
    assert "end it as the user it belongs to" in caplog.text
    assert house.states(other)[-2:] == ["lost", "queued"]


def test_contact_with_the_database_is_counted_by_its_clock_and_anew_after_each_break():
    contact, start = Contact(longest_gap=timedelta(seconds=30)), datetime(2026, 1, 1, tzinfo=UTC)
    at = [contact.lasts(start + timedelta(seconds=seconds)).total_seconds() for seconds in (0, 10, 20, 140, 150, 145)]
    assert at == [0, 10, 20, 0, 10, 0], "120 s without the database, then a clock that was set back"
    contact.broke()
    assert contact.lasts(start + timedelta(seconds=146)) == timedelta(0)


def test_a_trainer_of_this_machine_that_does_not_leave_in_time_is_killed_and_nothing_it_wrote_is_lost(house, dead_worker, in_touch):
    job_id = dead_worker("deaf", steps=100_000, devices=["7"])
    age(house, job_id, TAKEN_OVER + 1)
    in_touch(house).recovery.others()
    assert not house.trainers()[0].alive
    assert house.states(job_id)[-2:] == ["lost", "queued"]
    house.assert_nothing_lost(job_id)


def test_a_trainer_whose_attempt_was_given_up_elsewhere_is_killed(house, dead_worker, in_touch):
    job_id = dead_worker("slow", **ELSEWHERE)
    age(house, job_id, TAKEN_OVER + 1)
    recovery = in_touch(house).recovery
    recovery.others()
    assert house.job(job_id).status == "queued"
    with house.sessions.writing.begin() as session:
        session.exec(select(Attempt).where(Attempt.job_id == job_id)).one().boot_id = process.boot_id()
    (stray,) = house.trainers()
    assert stray.alive
    recovery.others()
    house.until(lambda: not stray.alive, "the stray is gone")


# several, again and again


def test_two_that_recover_at_once_lose_the_job_once(house, dead_worker):
    job_id = dead_worker("slow")
    house.kill_trainer()
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
    house.until(lambda: len(house.written_points(job_id)) >= 7, "a checkpoint was told of")
    house.kill_trainer()
    house.work("dead").take()
    assert house.states(job_id) == LOST_AND_TRAINED


def test_a_job_that_is_lost_without_progress_too_often_fails(house, dead_worker):
    job_id = dead_worker("hangs", max_attempts=1)
    house.kill_trainer()
    house.work().recovery.others()
    assert house.states(job_id)[-2:] == ["lost", "failed"]
    assert house.job(job_id).reason == "worker_lost"


def test_a_name_is_not_shared_by_two_living_workers(house):
    house.work("one")
    other = Identity.of(os.getppid())
    with house.sessions.writing.begin() as session:
        session.exec(select(Worker)).one().sqlmodel_update({"pid": other.pid, "pid_started": other.started})
    with pytest.raises(roster.Taken, match=f"pid {other.pid}"):
        house.work("one")


def test_a_gpu_is_not_shared_by_two_living_workers_and_the_second_says_whose_it_is(house):
    house.work("one", devices=["0", "1"])
    other = Identity.of(os.getppid())
    with house.sessions.writing.begin() as session:
        session.exec(select(Worker)).one().sqlmodel_update({"pid": other.pid, "pid_started": other.started})
    with pytest.raises(roster.Taken, match=rf"GPU 1 of this machine belongs to worker one \(pid {other.pid}\)"):
        house.work("two", devices=["1", "2"])
    house.work("three", devices=["2"])


def test_of_workers_that_start_on_one_gpu_at_once_all_but_one_are_refused(house):
    def join(number):
        try:
            return house.work(f"worker-{number}", devices=["0"]).member.name
        except roster.Taken:
            return None

    with ThreadPoolExecutor(4) as threads:
        assert len([name for name in threads.map(join, range(4)) if name]) == 1


def test_the_gpu_of_a_worker_that_died_is_free_and_the_cpu_is_anybodys(house):
    house.work("one", devices=["0"])
    house.bury("one")
    house.work("two", devices=["0"])
    house.work("three")
    house.work("four")


def test_a_gpu_of_another_machine_is_another_gpu(house):
    house.work("one", devices=["0"])
    house.bury("one", **ELSEWHERE)
    house.work("two", devices=["0"])
