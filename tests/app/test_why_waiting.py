"""Nothing waits without saying why."""

from datetime import timedelta

import pytest
from sqlmodel import select, update

from app import db
from app.jobs import pauses, waiting
from app.jobs import service as jobs
from app.models import Job, Worker
from panollava.events import Progress


def why(house, session):
    """The reason of every queued job, by age."""
    return [jobs.why_waiting(session, job) for job in session.exec(select(Job).where(Job.status == "queued").order_by(Job.id))]


def test_no_worker_at_all(house, session):
    house.create(session)
    assert why(house, session) == ["needs 1 device; no worker serves x1"]


@pytest.fixture
def waits(house):
    """A job that the only worker may take whenever it wants."""
    with house.writing.begin() as session:
        house.create(session)
        house.worker(session)


def take(house):
    with house.writing.begin() as session:
        house.claim(session, session.exec(select(Worker)).one())


def test_a_page_that_is_being_read_while_the_job_is_taken_shows_the_moment_before(house, waits):
    with house.reading() as session:
        job = session.exec(select(Job)).one()
        take(house)
        assert jobs.why_waiting(session, job) == "a worker is free and about to take it"


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_writer_that_sees_it_taken_since_it_was_read_says_so(house, waits):
    with house.writing() as session:
        job = session.exec(select(Job)).one()
        take(house)
        assert jobs.why_waiting(session, job) == "a worker has just taken it"
        assert waiting.reasons(session, [job]) == {}


def test_no_worker_with_as_many_devices(house, session):
    house.create(session, devices=2)
    house.worker(session)
    assert why(house, session) == ["needs 2 devices; no worker serves x2, there is x1"]
    house.worker(session, "large", devices=4)
    assert why(house, session) == ["needs 2 devices; no worker serves x2, there are x1 and x4"]


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
    assert why(house, session) == ["the only x1 worker runs run 1", "behind 1 job", "behind 2 jobs"]


def test_the_time_that_is_left_is_told_as_soon_as_the_trainer_foresees_it(house, session):
    house.create(session, devices=2)
    job, attempt = house.claim(session, house.worker(session, devices=2))
    house.create(session, devices=2)
    assert why(house, session) == ["needs 2 devices; the only x2 worker runs run 1"]
    house.tell(session, job, attempt, Progress(done=1, total=9, unit="steps", eta_seconds=35 * 60.0))
    assert why(house, session) == ["needs 2 devices; the only x2 worker runs run 1, about 35 min left"]
    house.tell(session, job, attempt, Progress(done=8, total=9, unit="steps", eta_seconds=5.0))
    assert why(house, session) == ["needs 2 devices; the only x2 worker runs run 1, less than a minute left"]


def test_of_several_workers_the_first_that_is_free_is_told_once_all_can_foresee_it(house, session):
    for _ in range(3):
        house.create(session)
    first, second = (house.claim(session, house.worker(session, name)) for name in ("gpu-0", "gpu-1"))
    house.tell(session, *first, Progress(done=1, total=9, unit="steps", eta_seconds=7200.0))
    assert why(house, session) == ["all 2 workers of x1 are busy"]
    house.tell(session, *second, Progress(done=1, total=9, unit="steps", eta_seconds=600.0))
    assert why(house, session) == ["all 2 workers of x1 are busy, the first of them has about 10 min left"]


def test_a_worker_that_takes_nothing_says_why(house, session):
    house.create(session)
    worker = house.worker(session, "gpu-0")
    worker.held_back = "GPU 0 is occupied by python (pid 7), which is no run of this house"
    session.flush()
    assert why(house, session) == [f"the only x1 worker takes nothing: {worker.held_back}"]
    house.claim(session, house.worker(session, "gpu-1"))
    house.create(session)
    assert why(house, session) == [f"worker gpu-0 is free but takes nothing: {worker.held_back}"]
    house.worker(session, "gpu-2")
    assert why(house, session) == ["a worker is free and about to take it"]


def test_a_paused_queue_comes_before_every_other_reason(house, session):
    house.create(session)
    house.create(session, devices=2)
    pauses.pause(session, "anna", "x1", "maintenance")
    said = why(house, session)
    assert said[1] == "needs 2 devices; no worker serves x2"
    assert said[0].startswith("queue x1 is paused by anna since ") and said[0].endswith(" UTC: maintenance")
    pauses.pause(session, "ben")
    assert [each[: len("the queue is paused by ben since ")] for each in why(house, session)] == ["the queue is paused by ben since "] * 2


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
