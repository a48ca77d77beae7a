"""A worker and its trainer that were frozen for so long that another host took their job, and wake up."""

import os
import signal

import pytest

from tests.deployments import ON_SERVERS
from tests.drills.conftest import WHOLE_WAY

pytestmark = [pytest.mark.redis, ON_SERVERS]
ELSEWHERE = {"HOST": "another machine", "TAKEOVER_SECONDS": "1", "CONTACT_SECONDS": "0", "SWEEP_SECONDS": "0.5"}


def test_what_a_zombie_writes_when_it_wakes_up_is_refused_and_its_trainer_is_killed(house, redis_url):
    first = house.worker(redis_url)
    job_id = house.submit("slow", steps=1_000_000)
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    (trainer,) = house.trainers()
    for pid in (first.pid, trainer.pid):
        os.kill(pid, signal.SIGSTOP)
    frozen_at = len(house.written_points(job_id))
    with house.recovery():
        house.worker(redis_url, "elsewhere", **ELSEWHERE)
        house.until(lambda: house.job(job_id).attempt == 2 and house.stored_points(job_id, 2), "another host has it")
    stored = repr(house.stored_points(job_id)), house.stored_log(job_id)

    os.kill(trainer.pid, signal.SIGCONT)
    house.until(lambda: len(house.written_points(job_id)) > frozen_at + 10, "the zombie writes")
    os.kill(first.pid, signal.SIGCONT)
    with house.recovery():
        house.until(lambda: not trainer.alive, "the zombie is killed")
    assert (repr(house.stored_points(job_id)), house.stored_log(job_id)) == stored
    house.stop(job_id)
    house.wait(job_id, "stopped")
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY[:3], "stopping", "stopped"]
    assert len(house.attempts(job_id)) == 2
    assert house.stored_points(job_id, 2) == house.written_points(job_id, 2)
    assert house.stored_log(job_id, 2) == house.written_log(job_id, 2)
