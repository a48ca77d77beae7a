"""A trainer outlives its worker: a worker with the same devices goes on with it, or it saves and leaves."""

import threading

import pytest
from sqlmodel import select

from app.models import Transition
from panollava.events import LEASE_FILE
from tests.worker.conftest import IMPATIENT
from tests.worker.test_database_away import away
from tests.worker.test_stop_job import working
from worker import lease, orphans

WHOLE_WAY = ["queued", "starting", "running", "succeeded"]


def at_step(house, job_id: int, step: int) -> None:
    house.until(lambda: len(house.written_points(job_id)) >= step, f"the trainer is at step {step}")


def test_a_living_trainer_is_adopted_in_the_same_attempt_and_nothing_is_lost_or_doubled(house, dead_worker):
    job_id = dead_worker("slow", steps=60)
    at_step(house, job_id, 10)
    house.work().take()
    job = house.job(job_id)
    assert (job.status, job.attempt, len(house.attempts(job_id))) == ("succeeded", 1, 1)
    assert [step for step, _t, _value in house.stored_points(job_id)] == list(range(1, 61))
    house.assert_nothing_lost(job_id)
    with house.sessions.reading() as session:
        (handed,) = session.exec(select(Transition).where(Transition.reason == "adopted"))
    assert (handed.old, handed.new, handed.actor) == (handed.new, handed.new, "one")


def test_it_goes_on_from_the_byte_that_its_worker_had_stored(house, dead_worker):
    job_id = dead_worker("slow", steps=60)
    at_step(house, job_id, 10)
    house.bring_in(job_id)
    stored = len(house.stored_points(job_id))
    assert 0 < stored < 60
    house.work().take()
    house.assert_nothing_lost(job_id)


def test_a_worker_that_starts_again_adopts_its_own_trainer(house, dead_worker):
    job_id = dead_worker("slow", steps=60)
    house.work("dead").take()
    assert (house.job(job_id).status, house.job(job_id).attempt) == ("succeeded", 1)
    house.assert_nothing_lost(job_id)


def test_of_several_that_start_at_once_one_adopts(house, dead_worker):
    job_id = dead_worker("slow", steps=60)
    workers = [house.work(name) for name in ("one", "two", "three")]
    taken = []
    threads = [threading.Thread(target=lambda work=work: taken.append(work.adoption.take())) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(taken) == 3 and sum(each is not None for each in taken) == 1
    assert house.job(job_id).attempt == 1


def test_one_whose_worker_came_back_first_is_not_adopted_by_another(house, dead_worker):
    """Two have seen the dead worker; its successor of the same name takes its row and its trainer before the other acts."""
    dead_worker("slow", steps=1000)
    other = house.work("other").adoption
    with house.sessions.reading() as session:
        (seen,) = orphans.watched(session, other.member)
    assert other._fits(seen)
    assert house.work("dead").adoption.take()
    with house.sessions.writing.begin() as session:
        assert other._take(session, seen) is None


def test_an_adopted_job_is_stopped_as_any_other(house, dead_worker):
    job_id = dead_worker("slow", steps=100_000)
    with working(house, house.work()):
        house.until(lambda: house.stored_points(job_id), "it is adopted")
        house.stop(job_id)
    assert house.job(job_id).status == "stopped" and house.job(job_id).detail.startswith("Saved at step")
    assert house.checkpoints(job_id)[-1].kind == "last"


def test_an_adopted_trainer_that_ignores_the_stop_is_killed(house, dead_worker):
    job_id = dead_worker("deaf", steps=100_000)
    with working(house, house.work(patience=IMPATIENT)):
        house.until(lambda: house.stored_points(job_id), "it is adopted")
        house.stop(job_id)
    assert (house.job(job_id).status, house.job(job_id).reason) == ("stopped", "killed")
    house.assert_nothing_lost(job_id)


def test_a_worker_that_leaves_drains_its_adopted_job(house, dead_worker):
    job_id = dead_worker("slow", steps=100_000)
    leaver = house.work()
    with working(house, leaver):
        house.until(lambda: house.stored_points(job_id), "it is adopted")
        leaver.leaving.set()
    assert house.states(job_id)[-3:] == ["stopping", "stopped", "queued"]
    assert house.job(job_id).resume_from.endswith("attempt-1/checkpoints/last.ckpt")
    house.assert_nothing_lost(job_id)


def test_an_adopted_trainer_that_is_killed_goes_on_in_another_attempt(house, dead_worker):
    job_id = dead_worker("slow", steps=1000)
    work = house.work()
    with working(house, work):
        house.until(lambda: house.checkpoints(job_id), "it is adopted")
        house.kill_trainer()
    assert house.job(job_id).status == "succeeded" and house.job(job_id).attempt == 2
    house.assert_nothing_lost(job_id)


def test_a_worker_whose_devices_a_trainer_without_a_worker_holds_takes_nothing_else(house, dead_worker):
    orphan = dead_worker("slow", steps=100_000, devices=["0", "1"])
    waiting = house.submit("steady")
    half, other = house.work("half", devices=["1"]), house.work("other", devices=["2"])
    half.take()
    assert house.states(waiting) == ["queued"]
    assert house.job(orphan).attempt == 1 and house.trainers()[0].alive
    other.take()
    assert house.job(waiting).status == "succeeded"
    again = house.submit("steady")
    house.kill_trainer()
    half.take()
    assert house.job(again).status == "succeeded"
    assert house.job(orphan).status == "queued", "it needs two devices"


def test_a_trainer_that_nobody_adopts_saves_leaves_and_goes_on_in_another_attempt(house, dead_worker):
    job_id = dead_worker("slow", steps=3000, lease_seconds=1.0)
    (trainer,) = house.trainers()
    house.until(lambda: not trainer.alive, "the trainer has left")
    last = house.written_points(job_id)[-1][0]
    house.work().take()
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY]
    assert house.attempts(job_id)[1].resumed_step == last
    assert house.reasons(job_id)[3] == "abandoned"
    house.assert_nothing_lost(job_id)


def test_the_lease_is_renewed_also_while_the_database_is_away(house, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    job_id = house.submit("slow", steps=100_000)
    work = house.work()
    with working(house, work):
        house.until(lambda: house.stored_points(job_id), "points are stored")
        file = house.directory(job_id) / LEASE_FILE
        with away(house):
            before = file.stat().st_mtime_ns
            house.until(lambda: file.stat().st_mtime_ns > before, "the lease is renewed")
        house.stop(job_id)


@pytest.mark.parametrize("end", ["stop", "drain"])
def test_a_trainer_that_is_still_importing_is_ended_and_its_job_says_so(house, end):
    job_id = house.submit("imports")
    work = house.work(patience=IMPATIENT)
    with working(house, work):
        house.until(house.trainers, "the trainer is there")
        house.stop(job_id) if end == "stop" else work.leaving.set()
    assert house.states(job_id) == ["queued", "starting", "stopping", "stopped", *(["queued"] if end == "drain" else [])]
    assert not house.trainers()[0].alive
