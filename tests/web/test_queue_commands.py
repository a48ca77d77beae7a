"""`panollava queue` and `panollava workers` against a real server."""

import json

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.client import ApiError


@pytest.fixture
def panollava(house, served):
    def call(*arguments):
        done = CliRunner().invoke(cli, arguments, env={"PANOLLAVA_URL": served.url, "PANOLLAVA_TOKEN": house.launch.token, "COLUMNS": "200"})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return call


def test_the_queue_is_listed_moved_paused_and_resumed(house, panollava):
    for _ in range(3):
        house.submit()

    def waiting():
        return [each["id"] for each in json.loads(panollava("queue", "list", "--json"))]

    panollava("queue", "reorder", "3", "--before", "2")
    assert waiting() == [1, 3, 2]
    panollava("queue", "reorder", "2")
    assert waiting() == [2, 1, 3]
    assert "no worker serves x1" in panollava("queue", "reorder", "3", "--priority", "1")
    assert waiting() == [3, 2, 1]
    assert "maintenance" in panollava("queue", "pause", "x1", "--reason", "maintenance")
    assert "is paused by token:test-launch" in panollava("queue", "list")
    assert "maintenance" not in panollava("queue", "resume", "x1")
    with pytest.raises(ApiError, match="Job 9 does not wait in the same queue"):
        panollava("queue", "reorder", "1", "--after", "9")


def test_workers_are_listed_with_what_they_are_at(house, panollava):
    house.submit()
    house.claim()
    assert [each["job_id"] for each in json.loads(panollava("workers", "list", "--json"))] == [1]
    assert "x1" in panollava("workers", "list")
