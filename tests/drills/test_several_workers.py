"""Several workers and too many bells: every job is run by one of them, once."""

import pytest
from sqlmodel import select

from app import broker, doorbell
from app.models import Attempt
from tests.deployments import ON_SERVERS
from tests.drills.conftest import WHOLE_WAY
from tests.worker.conftest import built

pytestmark = [pytest.mark.redis, ON_SERVERS]
NAMES = ("one", "two", "three", "four")
JOBS = 200


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, databases, redis_url):
    """A house with four real workers that look for work when somebody rings."""
    with built(tmp_path_factory.mktemp("crowd"), databases) as house:
        for name in NAMES:
            house.worker(redis_url, name, SWEEP_SECONDS="3600")
        for name in NAMES:
            house.until_ready(name)
        yield house


def test_the_same_bell_delivered_five_times_starts_a_job_once(crowd, redis_url):
    job_id = crowd.submit("slow", steps=100)
    with crowd.recovery():
        for _ in range(5):
            doorbell.ring(1, redis_url)
        crowd.until(lambda: crowd.stored_points(job_id), "it trains")
    crowd.wait(job_id, "succeeded")
    crowd.until(lambda: broker.client(redis_url).llen("x1") == 0, "every bell was heard")
    assert crowd.states(job_id) == WHOLE_WAY and len(crowd.attempts(job_id)) == 1
    crowd.assert_nothing_lost(job_id)


@pytest.mark.timeout(600)
def test_two_hundred_jobs_of_a_second_over_four_workers_are_each_run_once(crowd, redis_url):
    job_ids = [crowd.submit("second") for _ in range(JOBS)]
    with crowd.recovery(540):
        for _ in NAMES:
            doorbell.ring(1, redis_url)
        for job_id in job_ids:
            crowd.wait(job_id, "succeeded", 540)
    with crowd.sessions.reading() as session:
        attempts = session.exec(select(Attempt.job_id, Attempt.number, Attempt.exit_code).where(Attempt.job_id >= job_ids[0])).all()
    assert sorted(attempts) == [(job_id, 1, 0) for job_id in job_ids]
    assert len({job.worker_id for job in crowd.jobs()}) == len(NAMES)
    for job_id in job_ids:
        assert crowd.states(job_id) == WHOLE_WAY
        crowd.assert_nothing_lost(job_id)
