"""Nothing waits without saying why."""

from datetime import timedelta

from sqlmodel import select, update

from app import db
from app.jobs import service as jobs
from app.models import Job, Worker


def why(house, session):
    """The reason of every queued job, by age."""
    return [jobs.why_waiting(session, job) for job in session.exec(select(Job).where(Job.status == "queued").order_by(Job.id))]


def test_no_worker_at_all(house, session):
    house.create(session)
    assert why(house, session) == ["needs 1 device; no worker serves x1"]


def test_no_worker_with_as_many_devices(house, session):
    house.create(session, devices=2)
    house.worker(session)
    assert why(house, session) == ["needs 2 devices; no worker serves x2"]


def test_workers_that_are_silent_or_have_left_serve_nothing(house, session):
    house.create(session)
    house.worker(session, "silent")
    session.exec(update(Worker).values(heartbeat_at=db.now(session) - timedelta(minutes=1)))
    left = house.worker(session, "left")
    left.stopped_at = db.now(session)
    assert why(house, session) == ["needs 1 device; no worker serves x1"]


def test_the_one_worker_is_busy_and_others_come_first(house, session):
    for _ in range(4):
        house.create(session)
    house.claim(session, house.worker(session, "gpu-0"))
    assert why(house, session) == ["worker gpu-0 is busy with run 1", "behind 1 job", "behind 2 jobs"]


def test_a_higher_priority_comes_first(house, session):
    house.create(session)
    house.create(session)
    house.worker(session)
    session.exec(update(Job).where(Job.id == 2).values(priority=1))
    session.expire_all()
    assert why(house, session) == ["behind 1 job", "a worker is free and about to take it"]


def test_all_workers_are_busy(house, session):
    for _ in range(3):
        house.create(session)
    for name in ("gpu-0", "gpu-1"):
        house.claim(session, house.worker(session, name))
    assert why(house, session) == ["all 2 workers of x1 are busy"]
