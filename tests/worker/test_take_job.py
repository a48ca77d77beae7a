"""A claimed job, from its row through a real trainer process to its end. Sequences of states, and what is left behind."""

import os

import pytest
from sqlmodel import select

from app.jobs import service as jobs
from app.models import Attempt, Evaluation, Job, JobStatus, Run
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.metrics.report import GROWING_FILE
from worker.commands import CONFIG_FILE, prepare

WHOLE_WAY = ["queued", "starting", "running", "succeeded"]


def test_a_run_of_three_stages_is_trained_as_a_chain(house):
    house.submit("steady", stages="all")
    house.work().take()
    trained = house.jobs()
    assert [house.states(job.id) for job in trained] == [WHOLE_WAY] * 3
    configs = [RunConfig.model_validate_json((house.directory(job.id) / CONFIG_FILE).read_bytes()) for job in trained]
    assert [config.stage for config in configs] == [("vision",), ("resampler",), ("finetune",)]
    assert configs[0].init_from is None
    assert configs[1].init_from.startswith(str(house.directory(trained[0].id)))


def test_every_point_and_every_byte_of_the_log_is_stored_once(house):
    job_id = house.submit("steady", steps=1500)
    house.work().take()
    assert len(house.stored_points(job_id)) == 1500
    house.assert_nothing_lost(job_id)


def test_checkpoints_become_rows_and_the_best_is_the_stages(house):
    job_id = house.submit("steady", steps=10)
    house.work().take()
    assert [(row.kind, row.step) for row in house.checkpoints(job_id)] == [("step", 5), ("step", 10), ("epoch", 10), ("best", 10), ("last", 10)]
    assert house.attempts(job_id)[0].exit_code == 0


@pytest.mark.parametrize(
    ("script", "reason", "detail"),
    [
        ("bad-input", "bad_input", "train.csv: row 2: there is no column annotation."),
        ("broken", "exit_code", "RuntimeError: CUDA error: an illegal memory access"),
        ("aborts", "crashed", "killed by SIGABRT"),
        ("silent", "no_outcome", "without saying that it had succeeded"),
    ],
)
def test_a_trainer_that_fails_says_why(house, script, reason, detail):
    job_id = house.submit(script)
    house.work().take()
    job = house.job(job_id)
    assert house.states(job_id)[-1] == "failed" and job.reason == reason
    assert detail in job.detail
    house.assert_nothing_lost(job_id)


@pytest.mark.parametrize("script", ["killed", "bus", "torn"])
def test_a_trainer_that_is_killed_goes_on_in_another_attempt_from_its_last_checkpoint(house, script):
    job_id = house.submit(script)
    house.work().take()
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY]
    assert [(each.resumed_step, each.exit_code) for each in house.attempts(job_id)] == [(0, -7 if script == "bus" else -9), (5, 0)]
    assert house.job(job_id).losses == 0
    house.assert_nothing_lost(job_id)


def test_one_that_is_killed_every_time_before_it_saves_fails_when_its_attempts_are_used_up(house):
    job_id = house.submit("dies", max_attempts=2)
    house.work().take()
    job = house.job(job_id)
    assert house.states(job_id) == ["queued", "starting", "running", "lost", "queued", "starting", "running", "lost", "failed"]
    assert job.reason == "signal"
    assert "2 attempts in a row" in job.detail and "killed by SIGKILL, which we did not send" in job.detail


def test_a_failed_job_that_is_tried_again_continues_from_its_last_good_checkpoint(house):
    job_id = house.submit("aborts")
    house.work().take()
    house.do(jobs.retry, job_id, "a person")
    house.work("two").take()
    assert house.states(job_id) == ["queued", "starting", "running", "failed", "queued", "starting", "running", "succeeded"]
    assert [attempt.resumed_step for attempt in house.attempts(job_id)] == [0, 5]


def test_an_evaluation_is_a_job_too(house):
    trained = house.submit("steady", steps=10)
    work = house.work()
    work.take()
    job_id = house.evaluate(house.checkpoints(trained)[0].path)
    work.take()
    assert house.states(job_id) == WHOLE_WAY
    with house.sessions.reading() as session:
        assert session.exec(select(Evaluation)).one().metrics == {"bleu_4": 1.0}


def test_an_evaluation_that_is_tried_again_goes_on_from_the_answers_of_the_newest_attempt(house, tmp_path):
    trained = house.submit("steady", steps=10)
    house.work().take()
    job_id = house.evaluate(house.checkpoints(trained)[0].path)
    directories = [tmp_path / f"attempt-{number}" for number in (1, 2, 3)]
    for directory in directories:
        directory.mkdir()
    with house.sessions.reading() as session:
        job = session.get_one(Job, job_id)
        assert "--resume" not in prepare(session, job, Attempt(directory=str(directories[2])))
        for age, directory in zip((20, 10), directories[:2], strict=True):
            (directory / GROWING_FILE).touch()
            os.utime(directory / GROWING_FILE, (10**9 - age, 10**9 - age))
        assert prepare(session, job, Attempt(directory=str(directories[2])))[-2:] == ["--resume", str(directories[1])]


def test_a_job_for_more_devices_is_left_alone(house):
    job_id = house.submit("steady")
    with house.sessions.writing.begin() as session:
        session.get_one(Job, job_id).devices = 2
    house.work().take()
    assert house.states(job_id) == ["queued"]


def test_a_job_that_cannot_even_be_started_fails_and_the_worker_says_so(house):
    job_id = house.submit("steady")
    with house.sessions.writing.begin() as session:
        session.exec(select(Run)).one().config = {"name": "steady", "no_such_key": 1}
    with pytest.raises(BadInput, match="no_such_key"):
        house.work().take()
    job = house.job(job_id)
    assert (job.status, job.reason) == (JobStatus.failed, "bad_config")
    assert "no_such_key" in job.detail
