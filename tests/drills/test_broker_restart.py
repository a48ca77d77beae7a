"""Redis is restarted and emptied while a job runs: bells are lost, jobs are not."""

import pytest

from app import broker, doorbell
from tests.drills.conftest import WHOLE_WAY

pytestmark = pytest.mark.redis


def test_redis_is_restarted_and_emptied_during_a_run_and_what_was_rung_for_meanwhile_is_found_by_the_next_sweep(house, tmp_path):
    with broker.embedded(tmp_path / "broker") as bell:
        house.worker(bell.url)
        job_id = house.submit("slow", steps=300)
        doorbell.ring(1, bell.url)
        house.until(lambda: house.stored_points(job_id), "it runs")
    meanwhile = house.submit("second")
    assert not doorbell.ring(1, bell.url), "nobody is there"
    with broker.embedded(tmp_path / "broker"):
        doorbell.ring(1, bell.url)
        broker.client(bell.url).flushall()
        for each in (job_id, meanwhile):
            house.wait(each, "succeeded")
        unheard = house.submit("second")
        with house.recovery():
            house.wait(unheard, "succeeded")
    for each in (job_id, meanwhile, unheard):
        assert house.states(each) == WHOLE_WAY
        house.assert_nothing_lost(each)


def test_an_emptied_redis_carries_the_next_bell(listening, redis_url):
    """This worker sweeps once an hour."""
    broker.client(redis_url).flushall()
    job_id = listening.submit("steady")
    with listening.recovery():
        listening.until(lambda: doorbell.ring(1, redis_url), "the bell is taken")
        listening.wait(job_id, "succeeded")
    listening.assert_nothing_lost(job_id)
