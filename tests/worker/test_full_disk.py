"""Jobs wait, and say why, while the disk of their worker has no room for what they write; with room they go on by themselves."""

import shutil

import pytest
from sqlmodel import select

from app import artifacts
from app.checkpoints import exports
from app.jobs.waiting import why_waiting
from app.models import Checkpoint, Job, Worker
from app.settings import Settings
from tests.worker.conftest import built
from tests.worker.hosts import Host
from worker import room

MIB = 1 << 20


@pytest.fixture
def disk(monkeypatch):
    """The figure that the worker is told: `disk(free)`. Where it was asked for is noted."""
    asked = []

    def holds(free: int) -> list:
        monkeypatch.setattr(room.shutil, "disk_usage", lambda path: asked.append(path) or shutil._ntuple_diskusage(100 * MIB, 100 * MIB - free, free))
        return asked

    return holds


def row(house) -> Worker:
    with house.sessions.reading() as session:
        return session.exec(select(Worker)).one()


def why(house, job_id: int) -> str:
    with house.sessions.reading() as session:
        return why_waiting(session, session.get_one(Job, job_id))


def grown(house, size: int) -> None:
    """Checkpoints of this house have always been so large."""
    with house.sessions.writing.begin() as session:
        for each in session.exec(select(Checkpoint)):
            each.size = size


def test_a_job_waits_while_the_disk_has_not_the_room_of_one_checkpoint_and_is_taken_when_it_has(house, disk):
    work = house.work(least_free=50 * MIB)
    disk(60 * MIB)
    house.submit("steady")
    work.take()
    grown(house, 20 * MIB)

    (place,) = set(disk(10 * MIB))  # it has become full
    waiting = [house.submit("steady") for _ in range(3)]
    work.take()
    assert [house.states(job_id) for job_id in waiting] == [["queued"]] * 3
    said = f"only 10.0 MB free on {place}; a checkpoint needs about 20.0 MB"
    assert place.is_mount() and house.settings.artifacts.is_relative_to(place)
    assert why(house, waiting[0]) == f"the only x1 worker takes nothing: {said}" and why(house, waiting[1]) == "behind 1 job"
    assert row(house).held_back == said

    disk(20 * MIB)  # it has room again
    work.take()
    assert [house.states(job_id)[-1] for job_id in waiting] == ["succeeded"] * 3
    assert row(house).held_back is None


def test_of_models_that_nobody_has_trained_as_much_room_is_wanted_as_the_setting_says(house, disk):
    work = house.work(least_free=50 * MIB)
    disk(49 * MIB)
    job_id = house.submit("steady")
    work.take()
    said = "only 49.0 MB free on {}; 50.0 MB are wanted before a job is begun (PANOLLAVA_LEAST_FREE_GB)"
    assert house.states(job_id) == ["queued"] and row(house).held_back == said.format(room._mounted(house.settings.artifacts))
    disk(50 * MIB)
    work.take()
    assert house.states(job_id)[-1] == "succeeded"
    grown(house, MIB)
    other = house.submit("steady", language_model="larger")
    disk(49 * MIB)
    work.take()
    assert house.states(other) == ["queued"], "it is not known how large its checkpoints are"


def test_a_job_that_was_queued_after_the_look_at_the_disk_is_not_taken_either(house, disk, monkeypatch):
    work = house.work(least_free=50 * MIB)
    disk(0)
    monkeypatch.setattr(work, "_must_wait", lambda: bool(house.submit("steady")) and False)
    work.take()
    assert [house.states(job.id) for job in house.jobs()] == [["queued"]]


def test_an_export_wants_the_room_of_its_checkpoint_and_an_evaluation_next_to_none(house, disk):
    work = house.work()
    disk(60 * MIB)
    house.submit("steady")
    work.take()
    grown(house, 20 * MIB)
    with house.sessions.reading() as session:
        best = session.exec(select(Checkpoint).where(Checkpoint.kind == "best")).one()
    evaluated = house.evaluate(best.path)
    with house.sessions.writing.begin() as session:
        exports.export(session, session.get_one(Checkpoint, best.id), "ann")
    exported = house.jobs()[-1].id
    disk(10 * MIB)
    work.take()
    assert (house.states(evaluated)[-1], house.states(exported)) == ("succeeded", ["queued"])
    assert row(house).held_back.endswith("an export needs about 20.0 MB")


def test_with_a_store_the_disk_of_the_scratch_directory_counts(tmp_path, databases, disk, monkeypatch):
    with built(tmp_path, databases, artifacts="s3://bucket/prefix") as house:
        monkeypatch.setattr(artifacts, "free", lambda name: name)
        house.submit("steady")
        one = Host(house, "one")
        work = house.work("one", scratch=one.scratch, least_free=50 * MIB)
        asked = disk(0)
        monkeypatch.setattr(room, "_mounted", lambda path: path)
        assert work.room.lacks().startswith(f"only 0 B free on {one.scratch}/bucket/prefix/run-1/")
        assert asked[0].is_relative_to(one.scratch)


def test_a_worker_of_a_house_as_it_is_shipped_wants_a_gigabyte(monkeypatch):
    monkeypatch.delenv("PANOLLAVA_LEAST_FREE_GB")
    assert Settings().least_free_gb == 1.0
