"""The real thing: worker processes with a real Celery on a real Redis, doorbells, sweeps, and processes that are killed."""

import os
import signal

import pytest
from sqlmodel import select

from app import broker, doorbell
from app.models import Worker

pytestmark = pytest.mark.redis
WHOLE_WAY = ["queued", "starting", "running", "succeeded"]


def test_a_doorbell_starts_the_job_at_once_and_more_of_them_change_nothing(listening, redis_url):
    job_id = listening.submit("steady", stages="resampler,finetune")  # this worker sweeps once an hour
    for _ in range(3):
        doorbell.ring(1, redis_url)
    chain = listening.until(lambda: [job.id for job in listening.jobs() if job.status == "succeeded"][1:] and listening.jobs(), "the chain is done")
    assert [listening.states(job.id) for job in chain] == [WHOLE_WAY] * 2
    assert [job.attempt for job in chain] == [1, 1]
    listening.assert_nothing_lost(job_id)


def test_streams_are_woken_while_a_job_runs(listening, redis_url):
    with broker.client(redis_url).pubsub() as ears:
        ears.subscribe(doorbell.CHANNEL)
        assert ears.get_message(timeout=20)["type"] == "subscribe"
        job_id = listening.submit("steady")
        doorbell.ring(1, redis_url)
        assert ears.get_message(timeout=20)["data"] == b""
        listening.wait(job_id, "succeeded")


def test_a_trainer_killed_by_9_goes_on_in_its_next_attempt(listening, redis_url):
    job_id = listening.submit("slow", steps=10_000)
    doorbell.ring(1, redis_url)
    listening.until(lambda: listening.checkpoints(job_id), "a checkpoint is there")
    with listening.recovery():
        os.kill(listening.attempts(job_id)[0].pid, signal.SIGKILL)
        listening.until(lambda: listening.job(job_id).attempt == 2 and listening.stored_points(job_id, 2), "the next attempt trains")
    assert listening.states(job_id)[3] == "lost" and listening.reasons(job_id)[3] == "signal"
    listening.stop(job_id)
    listening.until(lambda: listening.job(job_id).status in ("stopped", "succeeded"), "it has ended")
    listening.assert_nothing_lost(job_id)


def test_two_workers_take_one_job_each_however_often_the_bell_rings(listening, redis_url):
    listening.worker(redis_url, "two")
    listening.until_ready("two")
    job_ids = [listening.submit("slow", steps=100_000) for _ in range(2)]
    for _ in range(8):
        doorbell.ring(1, redis_url)
    for job_id in job_ids:
        listening.wait(job_id, "running")
    assert len({listening.job(job_id).worker_id for job_id in job_ids}) == 2
    for job_id in job_ids:
        listening.stop(job_id)
        assert listening.wait(job_id, "stopped").attempt == 1
        listening.assert_nothing_lost(job_id)


def test_a_second_worker_of_the_same_name_is_refused(listening, redis_url):
    second = listening.worker(redis_url)
    assert second.wait(20) == 1
    assert "A worker named one runs on" in listening.story()


def test_a_worker_does_without_its_broker_and_hears_it_when_it_is_back(house, tmp_path):
    with broker.embedded(tmp_path / "broker") as bell:
        url = bell.url
    worker = house.worker(url)
    house.wait(house.submit("steady"), "succeeded")
    with broker.embedded(tmp_path / "broker"):
        house.until_ready()
        job_id = house.submit("slow", steps=80)
        doorbell.ring(1, url)
        house.wait(job_id, "running")
    assert house.wait(job_id, "succeeded").attempt == 1
    worker.terminate()
    assert worker.wait(20) == 0, house.story()


def test_a_worker_that_is_told_to_leave_saves_its_job_and_queues_it_again(house, redis_url):
    job_id = house.submit("slow", steps=10_000)
    worker = house.worker(redis_url)
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, house.story()
    assert house.states(job_id) == ["queued", "starting", "running", "stopping", "stopped", "queued"]
    assert house.job(job_id).resume_from.endswith("attempt-1/checkpoints/last.ckpt")
    with house.sessions.reading() as session:
        assert session.exec(select(Worker)).one().stopped_at
    house.assert_nothing_lost(job_id)


def test_a_trainer_whose_worker_was_killed_by_9_is_adopted_by_the_next_which_drains_it_when_it_is_told_to_leave(house, redis_url):
    job_id = house.submit("slow", steps=100_000)
    kill(house.worker(redis_url), house, job_id)
    (trainer,) = house.trainers()
    assert trainer.alive and house.job(job_id).status == "running"
    stored = len(house.stored_points(job_id))
    with house.recovery():
        second = house.worker(redis_url, "two")
        house.until(lambda: len(house.stored_points(job_id)) > stored + 20, "it is followed again")
    assert trainer.alive and house.job(job_id).attempt == 1
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0, house.story()
    assert house.reasons(job_id)[3:4] == ["adopted"]
    assert house.states(job_id)[4:] == ["stopping", "stopped", "queued"]
    assert house.job(job_id).resume_from.endswith("attempt-1/checkpoints/last.ckpt")
    house.assert_nothing_lost(job_id)


def test_after_a_kill_of_both_the_next_worker_has_the_next_attempt_running_within_45_seconds(house, redis_url):
    job_id = house.submit("slow", steps=300)
    worker = house.worker(redis_url)
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    with house.recovery():
        worker.kill()
        house.kill_trainer()
        worker.wait()
        house.worker(redis_url)  # of the same name, as a restart makes it
        house.until(lambda: house.job(job_id).attempt == 2 and house.job(job_id).status in ("running", "succeeded"), "the next attempt runs")
    house.wait(job_id, "succeeded")
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY]
    assert house.attempts(job_id)[1].resumed_step >= 5
    house.assert_nothing_lost(job_id)


def kill(worker, house, job_id: int) -> None:
    """kill -9, once there is a checkpoint."""
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    worker.kill()
    worker.wait()
