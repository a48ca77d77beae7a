"""What is on a worker's GPUs, as a driver says it that is not there: a script named nvidia-smi with recorded answers. No real GPU has seen this."""

import os
import subprocess
import sys

import pytest
from sqlmodel import func, select

from app import gpus
from app.gpus import NoAnswer
from app.jobs.waiting import why_waiting
from app.models import Job, MetricSeries, Worker
from panollava.events import EVENTS_FILE
from worker import orphans, roster

MIB = 1 << 20
GPUS = """\
0, GPU-aa, NVIDIA H100 80GB HBM3, 61000, 81559, 94
1, GPU-bb, NVIDIA H100 80GB HBM3, 4, 81559, 0
2, GPU-cc, Odd, name, [N/A], [N/A], [N/A]
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Answers as `nvidia-smi --format=csv,noheader,nounits` gives them: `driver(processes)`."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    def answer(processes="", cards=GPUS, code=0):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "cards").write_text(cards)
        (tmp_path / "processes").write_text(processes)
        program = tmp_path / "bin" / "nvidia-smi"
        program.write_text(f'#!/bin/sh\ncase "$1" in --query-gpu=*) cat {tmp_path}/cards;; *) cat {tmp_path}/processes;; esac\nexit {code}\n')
        program.chmod(0o755)

    return answer


@pytest.fixture
def stranger():
    """A process of somebody else."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    yield process
    process.communicate()


def row(house, name="one"):
    with house.sessions.reading() as session:
        return session.exec(select(Worker).where(Worker.name == name)).one()


def test_the_driver_tells_of_memory_use_and_processes_and_what_it_does_not_know_is_none(driver):
    driver("GPU-aa, 4711, /usr/bin/python3, 60000\nGPU-aa, 12, a, b, [N/A]\n")
    first, odd = gpus.read(["0", "2"])
    assert (first.index, first.name, first.memory_used, first.memory_total, first.use) == ("0", "NVIDIA H100 80GB HBM3", 61000 * MIB, 81559 * MIB, 94)
    assert [(each.pid, each.name, each.memory) for each in first.processes] == [(4711, "python3", 60000 * MIB), (12, "a, b", None)]
    assert (odd.name, odd.memory_used, odd.memory_total, odd.use, odd.processes) == ("Odd, name", None, None, None, [])


def test_a_machine_without_a_driver_and_a_worker_on_the_cpu_see_nothing(driver, monkeypatch, tmp_path):
    driver(code=9)
    assert gpus.read(["cpu"]) == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert gpus.read(["0"]) == []


@pytest.mark.parametrize("answer", [{"code": 9}, {"cards": "NVIDIA-SMI has failed\n"}, {"cards": "0, GPU-aa\n"}])
def test_a_driver_that_fails_or_talks_nonsense_is_no_answer_and_keeps_nobody_from_a_job(driver, house, answer):
    driver(**answer)
    with pytest.raises(NoAnswer, match="nvidia-smi"):
        gpus.read(["0"])
    assert house.work(devices=["0"]).glance.occupied_by() is None
    assert row(house).gpus_at is None


def test_a_driver_that_hangs_is_given_up(tmp_path, driver, house, monkeypatch):
    driver()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(gpus, "PATIENCE", 0.2)
    with pytest.raises(NoAnswer, match="TimeoutExpired"):
        gpus.read(["0"])
    assert house.work(devices=["0"]).glance.occupied_by() is None


def test_a_stranger_with_much_memory_is_named_and_no_job_is_taken_until_it_has_left(driver, house, stranger):
    driver(f"GPU-bb, {stranger.pid}, /opt/python, 40000\n")
    job_id = house.submit("steady")
    work = house.work(devices=["1"])
    work.take()
    said = f"GPU 1 is occupied by python (pid {stranger.pid}), which is no run of this house"
    assert row(house).held_back == said
    assert row(house).gpus[0]["processes"] == [{"pid": stranger.pid, "name": "python", "memory": 40000 * MIB, "is_ours": False}]
    with house.sessions.reading() as session:
        assert why_waiting(session, session.get_one(Job, job_id)) == f"the only x1 worker takes nothing: {said}"
    driver()
    work.take()
    assert house.states(job_id)[-1] == "succeeded"
    assert row(house).held_back is None


def test_a_stranger_with_little_memory_is_named_and_keeps_nobody_from_a_job(driver, house, stranger):
    driver(f"GPU-bb, {stranger.pid}, python, 8000\n")
    job_id = house.submit("steady")
    house.work(devices=["1"]).take()
    assert house.states(job_id)[-1] == "succeeded"
    assert row(house).gpus[0]["processes"][0]["is_ours"] is False


def test_a_setting_lets_workers_take_jobs_whoever_is_there(driver, house, stranger):
    driver(f"GPU-bb, {stranger.pid}, python, 81559\n")
    job_id = house.submit("steady")
    house.work(devices=["1"], foreign_share=1.0).take()
    assert house.states(job_id)[-1] == "succeeded"


def test_strangers_on_devices_of_others_are_no_concern_of_this_worker(driver, house, stranger):
    driver(f"GPU-aa, {stranger.pid}, python, 81559\n")
    assert house.work(devices=["1"]).glance.occupied_by() is None


def test_a_trainer_of_this_house_and_its_children_are_no_strangers_and_one_that_is_gone_is_unknown(driver, house, dead_worker, stranger):
    dead_worker("steady", steps=10**6, devices=["1"])
    with house.sessions.reading() as session:
        trainer = orphans.trainers(session)[0]
    child = subprocess.Popen(["true"])
    child.wait()
    driver(f"GPU-bb, {trainer.pid}, python, 50000\nGPU-bb, {stranger.pid}, python, 5\nGPU-bb, {child.pid}, python, 30000\n")
    work = house.work("two", devices=["1"])
    seen = work.glance.look()[0]
    assert [each.is_ours for each in seen.processes] == [True, False, None]
    assert work.glance.occupied_by() is None
    trainer.kill()


def test_a_device_that_an_orphan_holds_is_said_to_be_held(house, dead_worker):
    dead_worker("steady", steps=10**6, devices=["0", "1"])
    job_id = house.submit("steady")
    work = house.work("two", devices=["1"])
    work.take()
    said = "its device 1 is held by a trainer that has lost its worker, until that is adopted or has left"
    assert row(house, "two").held_back == said
    with house.sessions.reading() as session:
        assert why_waiting(session, session.get_one(Job, job_id)) == f"the only x1 worker takes nothing: {said}"
        trainer = orphans.trainers(session)[0]
    trainer.kill()


def test_a_heartbeat_says_how_many_bytes_of_the_trainer_are_not_in_the_database(house, dead_worker):
    job_id = dead_worker("steady", steps=3)
    directory = house.directory(job_id)
    work = house.work("two")
    with house.sessions.writing.begin() as session:
        session.get_one(Job, job_id).worker_id = work.member.id
    house.until(lambda: b"succeeded" in (directory / EVENTS_FILE).read_bytes(), "the trainer has ended")
    roster.beat(house.sessions.writing, work.member)
    assert row(house, "two").unread == sum((directory / name).stat().st_size for name in (EVENTS_FILE, "output.log"))


def test_metric_points_are_counted_in_the_row_of_the_worker_that_brings_them_in(house):
    house.submit("steady", steps=30)
    house.work().take()
    house.submit("steady", steps=12)
    house.work().take()
    with house.sessions.reading() as session:
        stored = session.exec(select(func.sum(MetricSeries.count))).one()
    assert row(house).points == stored > 42
