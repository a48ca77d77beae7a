"""Hosts whose clocks are wrong: silence is judged in database time, and leases by each trainer's own steady clock."""

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import col, select

from app import db
from app.models import Job, Transition, Worker
from tests.deployments import ON_SERVERS
from tests.drills.conftest import WHOLE_WAY
from tests.worker.conftest import ROOT

pytestmark = [pytest.mark.redis, ON_SERVERS]
FAST, SLOW = "300", "-300"
CLOCK = os.pathsep.join([str(Path(__file__).parent / "wrong_clock"), str(ROOT)])


def test_workers_whose_clocks_are_ten_minutes_apart_leave_each_others_jobs_alone_and_recover_dead_ones(house, redis_url):
    behind = house.worker(redis_url, "behind", PYTHONPATH=CLOCK, CLOCK_SHIFT=SLOW)
    job_id = house.submit("slow", steps=1500)
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    house.worker(redis_url, "ahead", PYTHONPATH=CLOCK, CLOCK_SHIFT=FAST, CONTACT_SECONDS="0", SWEEP_SECONDS="0.5")
    house.until_ready("ahead")
    house.until(lambda: len(house.stored_points(job_id)) > len(house.written_points(job_id)) / 2 > 150, "it goes on beside the other")
    told = house.written_points(job_id)[0][1]
    with house.sessions.reading() as session:
        now = db.now(session)
        beats = [session.get_one(Job, job_id).heartbeat_at, *session.exec(select(Worker.heartbeat_at))]
        moves = session.exec(select(Transition.at).order_by(col(Transition.id))).all()
    assert 200 < now.timestamp() - told < 400, "the clock of the trainer is wrong"
    assert all(abs(now - each) < timedelta(seconds=60) for each in (*beats, *moves)), "and nobody else's"
    assert house.states(job_id) == WHOLE_WAY[:3]
    behind.send_signal(signal.SIGSTOP)  # both die at once: neither sees the other go, nor does the worker that lives adopt the trainer in between
    house.kill_trainer()
    behind.kill()
    behind.wait()
    with house.recovery():
        house.wait(job_id, "succeeded")
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY]
    house.assert_nothing_lost(job_id)
