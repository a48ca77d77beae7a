"""Two drills with the real trainer and default settings. A third, kill -9 of the worker alone, is in tests/whole."""

import signal

import pytest
from sqlmodel import select

from app import demo
from app.models import Job
from app.runs import service as runs
from app.settings import Settings
from panollava.config import RunConfig
from panollava.presets import PRESETS
from tests.drills.conftest import WHOLE_WAY
from tests.worker.conftest import House

pytestmark = [pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def real_house(house, demo_data):
    house.settings = Settings(home=house.settings.home, roots=[demo_data])
    return house


def submit(house: House, data) -> int:
    """A resampler stage that trains for as long as it is let."""
    values = PRESETS["demo"] | {"stage": "resampler", "data_dir": str(data)}
    values["stages"] = {"resampler": PRESETS["demo"]["stages"]["resampler"] | {"epochs": 500, "batch_size": 4, "save_every_steps": 5}}
    with house.sessions.writing.begin() as session:
        run = runs.create(session, RunConfig.model_validate(values), house.settings, actor="test")
        return session.exec(select(Job.id).where(Job.run_id == run.id)).one()


def worker(house: House, redis_url: str):
    return house.worker(redis_url, module="worker", **demo.SMALL_MODELS)


def test_a_worker_that_is_told_to_leave_while_its_trainer_imports_ends_it_and_queues_the_job_again(real_house, demo_data, redis_url):
    house, job_id = real_house, submit(real_house, demo_data)
    first = worker(house, redis_url)
    (trainer,) = house.until(house.trainers, "the trainer is there")
    first.send_signal(signal.SIGTERM)
    with house.recovery(8 + 60):
        assert first.wait(90) == 0, house.story()
    assert not trainer.alive
    begun = "running" in house.states(job_id)  # the first that it says, and looks whether it may go on
    assert house.states(job_id) == ["queued", "starting", *(["running"] if begun else []), "stopping", "stopped", "queued"]
    assert house.job(job_id).resume_from is None and house.written_points(job_id) == []
    assert house.reasons(job_id)[-1] == "worker_drained"
    house.assert_nothing_lost(job_id)


def test_after_kill_9_of_worker_and_trainer_the_next_attempt_is_running_within_45_seconds_of_the_kill(real_house, demo_data, redis_url):
    house, job_id = real_house, submit(real_house, demo_data)
    first = worker(house, redis_url)
    house.until(lambda: [each for each in house.checkpoints(job_id) if each.step >= 10], "step 10 is saved", 120)
    with house.recovery():
        first.kill()
        house.kill_trainer()
        first.wait()
        worker(house, redis_url)
        house.until(lambda: house.job(job_id).attempt == 2 and house.job(job_id).status == "running", "the next attempt runs")
    house.until(lambda: house.stored_points(job_id, 2), "it has taken a step")
    house.stop(job_id)
    house.wait(job_id, "stopped", 90)
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY[:3], "stopping", "stopped"]
    before, after = ([step for step, _t, _value in house.stored_points(job_id, number)] for number in (1, 2))
    resumed = house.attempts(job_id)[1].resumed_step
    assert resumed >= 10 and before == list(range(1, before[-1] + 1)) and after == list(range(resumed + 1, after[-1] + 1))
    house.assert_nothing_lost(job_id)
