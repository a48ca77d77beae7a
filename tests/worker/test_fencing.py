"""An attempt that was given to another worker writes nothing more, however much its trainer still says."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlmodel import delete

from app.events import service as events
from app.jobs.finish import finish
from app.models import Job, JobStatus, Run
from worker import follow, orphans


def test_a_worker_that_was_given_up_kills_its_trainer_and_writes_nothing_more(house, monkeypatch):
    monkeypatch.setattr(follow, "HEARTBEAT_SECONDS", 0.1)
    job_id = house.submit("slow", steps=100_000)
    thread = threading.Thread(target=house.work().take)
    thread.start()
    house.until(lambda: house.stored_points(job_id), "points are stored")
    (trainer,) = house.trainers()
    with house.sessions.writing.begin() as session:  # as if another worker had lost and claimed it
        job = session.get_one(Job, job_id)
        job.attempt, job.worker_id = 2, None
    stored = repr(house.stored_points(job_id)), house.stored_log(job_id)
    thread.join(20)
    assert not thread.is_alive() and not trainer.alive
    assert (repr(house.stored_points(job_id)), house.stored_log(job_id)) == stored
    assert house.states(job_id) == ["queued", "starting", "running"]


def test_a_worker_whose_run_was_deleted_while_it_was_cut_off_kills_its_trainer_and_takes_the_next_job(house):
    job_id = house.submit("slow", steps=100_000)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(house.work().take)
        house.until(lambda: house.stored_points(job_id), "points are stored")
        (trainer,) = house.trainers()
        forget(house)
        taken.result(60)
    assert not trainer.alive


def test_a_job_that_was_deleted_since_it_was_seen_is_nobodys_to_recover_or_to_finish(house, dead_worker):
    job_id = dead_worker("slow")
    member = house.work().member
    with house.sessions.reading() as session:
        (seen,) = orphans.watched(session, member)
    forget(house)
    with house.sessions.writing.begin() as session:
        assert orphans.again(session, seen, member) is None
        assert not finish(session, job_id, 1, JobStatus.failed, actor="one", reason="infrastructure")
        assert not events.note(session, job_id, 1, "info", "Downloading.")


def forget(house):
    """As if another host had taken the job over, and a person had then stopped and deleted the run."""
    with house.sessions.writing.begin() as session:
        session.exec(delete(Run))
