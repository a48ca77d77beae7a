"""Who wins the row does the work."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from sqlmodel import update

from app import db
from app.jobs import service as jobs
from app.models import Attempt, Job, Worker
from app.runs import service as runs


def test_a_claim_makes_the_next_attempt_with_a_directory_of_its_own(house, session):
    run = house.create(session)
    worker = house.worker(session)
    job, attempt = house.claim(session, worker)
    assert (job.status, job.attempt, job.worker_id) == ("starting", 1, worker.id)
    assert (attempt.number, attempt.worker_id, attempt.resumed_step, attempt.event_offset) == (1, worker.id, 0, 0)
    assert attempt.directory == f"{run.directory}/vlm_resampler/attempt-1"
    assert Path(attempt.directory).is_dir()


def test_a_second_worker_leaves_the_job_alone(house, session):
    house.create(session)
    house.claim(session)
    assert jobs.claim(session, house.worker(session, "two")) is None


def test_priority_comes_before_age(house, session):
    made = [runs.create(session, house.config(stage="resampler"), house.settings, "ann", priority) for priority in (0, 5, 5, 1)]
    worker = house.worker(session)
    taken = [house.claim(session, worker)[0].run_id for _ in made]
    assert taken == [made[1].id, made[2].id, made[3].id, made[0].id]


def test_a_worker_takes_only_jobs_for_all_its_devices(house, session):
    house.create(session)
    session.exec(update(Job).values(devices=2))
    assert jobs.claim(session, house.worker(session, "small", devices=1)) is None
    assert jobs.claim(session, house.worker(session, "large", devices=4)) is None
    assert jobs.claim(session, house.worker(session, "right", devices=2))


def test_many_workers_at_once_get_every_job_once(house):
    with house.writing.begin() as session:
        for _ in range(6):
            house.create(session)
        workers = [house.worker(session, f"worker-{n}").id for n in range(6)]

    def claim(worker_id):
        with house.writing.begin() as session:
            attempt = jobs.claim(session, session.get_one(Worker, worker_id))
            return attempt.job_id if attempt else None

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(claim, workers))
    assert sorted(taken) == sorted(set(taken)) and None not in taken


def test_a_heartbeat_keeps_the_job_alive(house, session):
    job, _attempt = house.running(session)
    job.heartbeat_at = db.now(session) - timedelta(minutes=1)
    session.add(job)
    assert jobs.is_lost(job, db.now(session))
    assert jobs.heartbeat(session, job.id, 1, progress={"done": 3})
    session.refresh(job)
    assert not jobs.is_lost(job, db.now(session))
    assert job.progress == {"done": 3}


def test_a_heartbeat_of_an_older_attempt_is_refused(house, session):
    job, _attempt = house.running(session)
    jobs.lose(session, job, "sweep")
    assert not jobs.heartbeat(session, job.id, 1)
    house.claim(session)
    assert not jobs.heartbeat(session, job.id, 1)
    assert jobs.heartbeat(session, job.id, 2)


def test_a_claim_that_was_rolled_back_can_be_made_again(house):
    with house.writing.begin() as session:
        house.create(session)
        worker = house.worker(session)
    with house.writing() as session:
        jobs.claim(session, worker)
        session.rollback()
    with house.writing.begin() as session:
        attempt = jobs.claim(session, worker)
        assert attempt.number == 1
        assert session.get_one(Job, attempt.job_id).attempt == 1
        assert session.get_one(Attempt, attempt.id)
