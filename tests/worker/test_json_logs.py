"""A worker's log for machines: every line is a JSON object, and those about a job have the ids of its run, itself and its attempt."""

import json
import signal

import pytest

GOODBYE = ("", "worker: Warm shutdown (MainProcess)")
"""Celery prints it past all loggers when a signal comes."""


@pytest.mark.redis
def test_every_line_of_a_worker_is_json_and_names_run_job_and_attempt(house, redis_url):
    worker = house.worker(redis_url, PANOLLAVA_LOG_FORMAT="json")
    house.wait(house.submit("steady"), "succeeded")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    lines = (house.settings.home / "worker-one.log").read_text().splitlines()
    said = [json.loads(line) for line in lines if line not in GOODBYE]
    ids = {(each["run"], each["job"], each["attempt"]) for each in said if "Job 1" in each["message"]}
    assert ids == {(1, 1, 1)}
    assert any("run" not in each for each in said)
