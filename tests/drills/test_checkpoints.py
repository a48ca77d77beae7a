"""kill -9 while a checkpoint is written, and a disk that is full: the checkpoint before it is what the next attempt goes on from."""

import os
import subprocess

import pytest

from app import doorbell
from app.jobs import service as jobs
from app.models import Worker
from panollava.rundir import CHECKPOINTS
from tests.drills.conftest import WHOLE_WAY
from tests.worker.conftest import House
from tests.worker.hosts import row

pytestmark = pytest.mark.redis
LOST_AND_TRAINED = [*WHOLE_WAY[:3], "lost", *WHOLE_WAY]


@pytest.mark.parametrize(("script", "resumed"), [("half-saved", 5), ("untold", 10)])
def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_last_whole_one(listening, redis_url, script, resumed):
    job_id = listening.submit(script)
    doorbell.ring(1, redis_url)
    with listening.recovery():
        listening.wait(job_id, "succeeded")
    assert listening.states(job_id) == LOST_AND_TRAINED
    assert [each.resumed_step for each in listening.attempts(job_id)] == [0, resumed]
    listening.assert_nothing_lost(job_id)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own for what trainers write."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system to fill")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "panollava-test", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_is_full_fails_one_job_and_holds_the_next_with_room_the_one_goes_on_from_its_last_checkpoint_and_the_other_begins(
    redis_url, small_disk, house
):
    full = House(house.settings.model_copy(update={"artifacts": small_disk}), house.processes)
    full.worker(redis_url)
    job_id = full.submit("fat", steps=60)
    doorbell.ring(1, redis_url)
    failed = full.wait(job_id, "failed")
    assert failed.reason == "exit_code" and failed.attempt == 1
    assert full.states(job_id) == [*WHOLE_WAY[:3], "failed"]
    whole = [each.step for each in full.checkpoints(job_id)]
    assert whole and not (full.directory(job_id) / CHECKPOINTS / f"step={whole[-1] + 5:06d}.ckpt").exists()
    second = full.submit("fat", steps=60)
    doorbell.ring(1, redis_url)
    full.until(lambda: row(full, Worker).held_back, "the worker says why it takes nothing")
    assert f"free on {small_disk}; a checkpoint needs about " in row(full, Worker).held_back
    assert full.states(second) == ["queued"]
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    with full.recovery():
        full.do(jobs.retry, job_id, "a person")
        doorbell.ring(1, redis_url)
        full.wait(job_id, "succeeded")
        full.wait(second, "succeeded")
    assert full.states(second) == WHOLE_WAY
    assert full.attempts(job_id)[1].resumed_step == whole[-1]
    full.assert_nothing_lost(job_id)
    full.assert_nothing_lost(second)
    full.engine.dispose()
