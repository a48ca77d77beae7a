"""Logs that machines read: every line of a server is a JSON object, and says which run it is about."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from app.telemetry.json_logs import JsonFormatter, about


def line(text, *args, exc_info=None):
    record = logging.LogRecord("app.test", logging.WARNING, __file__, 1, text, args, exc_info)
    return json.loads(JsonFormatter().format(record))


def test_a_line_has_its_time_level_and_message_and_what_it_is_about():
    with about(run=7), about(job=8, attempt=2):
        said = line("Job %d\nis\0odd", 8)
    assert said.pop("time").endswith("+00:00")
    assert said == {"level": "WARNING", "logger": "app.test", "message": "Job 8\nis\0odd", "run": 7, "job": 8, "attempt": 2}
    assert "run" not in line("later")


def test_an_exception_is_in_the_line_that_tells_of_it():
    try:
        raise ValueError("odd\nthing")
    except ValueError:
        said = line("It went wrong.", exc_info=sys.exc_info())
    assert said["message"] == "It went wrong." and said["exception"].endswith("ValueError: odd\nthing")


@pytest.mark.parametrize("odd", ["\ud800", object()])
def test_what_is_no_text_is_written_all_the_same(odd):
    assert line("odd: %s", odd)["message"].startswith("odd: ")


def test_every_line_of_a_server_is_json_and_a_request_names_its_run(tmp_path):
    path = tmp_path / "server.log"
    environment = os.environ | {"PANOLLAVA_HOME": str(tmp_path), "PANOLLAVA_LOG_FORMAT": "json", "PANOLLAVA_BROKER_URL": "filesystem://"}
    with path.open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "app.cli", "server", "--port", "0"], env=environment, stdout=log, stderr=log)
    try:
        url = until(lambda: [part for part in path.read_text().split() if part.startswith("http://127.0.0.1:")])[0]
        httpx.get(f"{url}/runs/41")
        httpx.get(f"{url}/healthz")
        until(lambda: "/healthz" in path.read_text())
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    said = [json.loads(each) for each in path.read_text().splitlines()]
    about_runs = {each["message"]: each.get("run") for each in said if each["logger"] == "uvicorn.access"}
    assert [run for message, run in about_runs.items() if "/runs/41" in message] == [41]
    assert [run for message, run in about_runs.items() if "/healthz" in message] == [None]


def until(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
