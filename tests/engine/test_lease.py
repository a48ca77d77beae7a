"""A trainer whose worker is gone saves and leaves; one from a terminal has no such rule."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.events import ABANDONED, EVENTS_FILE, LEASE_FILE, LEASE_VARIABLE, STOP_FILE, StageEvent
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.lease import Lease
from panollava.training.stop import Stopped, StopRequest


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1000.0)


def touch(directory: Path, times: int) -> None:
    """Each touch gives another time, whatever the file system's resolution; the times themselves are those of a clock that is far off."""
    (directory / LEASE_FILE).touch()
    os.utime(directory / LEASE_FILE, (times, times))


def test_a_lease_that_is_renewed_is_never_over_whatever_the_file_says_of_the_time(tmp_path, clock):
    touch(tmp_path, 1)
    lease = Lease(tmp_path, 120, lambda: clock.now)
    for times in range(2, 60):
        clock.now += 5
        touch(tmp_path, times)
        assert not lease.is_over()


def test_it_is_over_when_nobody_has_renewed_it_for_so_long_and_stays_over(tmp_path, clock):
    touch(tmp_path, 1)
    lease = Lease(tmp_path, 120, lambda: clock.now)
    clock.now += 119
    assert not lease.is_over()
    clock.now += 2
    assert lease.is_over()
    touch(tmp_path, 2)
    clock.now += 2
    assert lease.is_over()


def test_a_step_that_takes_longer_than_the_lease_is_no_reason_to_leave(tmp_path, clock):
    touch(tmp_path, 1)
    lease = Lease(tmp_path, 120, lambda: clock.now)
    clock.now += 500
    touch(tmp_path, 2)
    assert not lease.is_over()


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path, clock):
    lease = Lease(tmp_path, 120, lambda: clock.now)
    lease._look = lambda: pytest.fail("looked at again")
    for _ in range(99):
        clock.now += 0.01
        assert not lease.is_over()


def test_without_a_worker_there_is_no_lease(tmp_path, monkeypatch):
    monkeypatch.delenv(LEASE_VARIABLE, raising=False)
    assert Lease.given(tmp_path) is None
    assert not StopRequest(tmp_path)


def test_a_person_who_asked_too_is_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv(LEASE_VARIABLE, "-1")
    stop = StopRequest(tmp_path)
    assert stop and stop.reason == ABANDONED
    (tmp_path / STOP_FILE).touch()
    assert stop.reason == "stop_requested"


def test_an_abandoned_training_saves_at_a_step_boundary_and_says_so(config: RunConfig, tmp_path):
    stop = StopRequest(tmp_path)
    stop._lease = SimpleNamespace(is_over=lambda: b'"type":"metric"' in (tmp_path / EVENTS_FILE).read_bytes())
    last = leaves(config, tmp_path, stop)
    assert last.step == 1
    assert rundir.read_note(rundir.last_good(tmp_path / rundir.CHECKPOINTS, pytest.fail)).step == 1


def test_one_that_still_reads_its_images_leaves_too(config: RunConfig, tmp_path, monkeypatch):
    monkeypatch.setenv(LEASE_VARIABLE, "-1")
    last = leaves(config, tmp_path, StopRequest(tmp_path))
    assert (last.step, b'"metric"' in (tmp_path / EVENTS_FILE).read_bytes()) == (0, False)


def leaves(config: RunConfig, directory: Path, stop: StopRequest) -> StageEvent:
    """The last word of a training that is abandoned."""
    with pytest.raises(Stopped):
        train_stage(StageJob(config, Stage.resampler, directory), stop)
    last = [event for _, event in events.read(directory / EVENTS_FILE) if isinstance(event, StageEvent)][-1]
    assert (last.status, last.reason) == ("stopped", ABANDONED)
    return last
