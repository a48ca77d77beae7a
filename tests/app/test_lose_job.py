"""A worker dies, and its job is found again."""

from datetime import timedelta

from sqlmodel import update

from app import db
from app.jobs import service as jobs
from app.models import Attempt, Job, JobStatus
from app.runs import service as runs
from panollava.events import Metric


def silent(session, job, seconds=31):
    session.exec(update(Job).where(Job.id == job.id).values(heartbeat_at=db.now(session) - timedelta(seconds=seconds)))
    session.expire(job)


def test_a_job_is_lost_after_thirty_seconds_of_silence(house, session):
    job, _attempt = house.running(session)
    assert not jobs.is_lost(job, db.now(session))
    silent(session, job)
    assert jobs.is_lost(job, db.now(session))


def test_a_lost_job_is_queued_again_from_its_last_checkpoint(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    assert jobs.lose(session, job, "sweep")
    assert house.states(session, job)[-2:] == ["lost", "queued"]
    assert job.resume_from.endswith("step=000007.ckpt")
    assert (job.worker_id, job.heartbeat_at, attempt.ended_at is not None) == (None, None, True)
    _job, again = house.claim(session)
    assert (again.number, again.resumed_step) == (2, 7)


def test_three_losses_in_a_row_without_a_new_checkpoint_fail_the_job(house, session):
    house.create(session)
    for number in (1, 2, 3):
        job, attempt = house.claim(session)
        assert attempt.number == number
        jobs.lose(session, job, "sweep")
    assert (job.status, job.reason, job.losses) == ("failed", "worker_lost", 3)
    assert "3 attempts in a row" in job.detail


def test_an_attempt_that_got_further_ends_the_row_of_losses(house, session):
    house.create(session)
    for step in (10, 20, 30, 40):
        job, attempt = house.claim(session)
        house.tell(session, job, attempt, house.saved(attempt, step))
        jobs.lose(session, job, "sweep")
    assert (job.status, job.losses) == ("queued", 0)


def test_one_that_gets_a_little_further_each_time_does_not_go_on_for_ever_and_a_person_lets_it_begin_to_count_anew(house, session):
    house.create(session, max_attempts=1)
    worker = house.worker(session)
    for step in range(1, 11):
        job, attempt = house.claim(session, worker)
        house.tell(session, job, attempt, house.saved(attempt, step))
        jobs.lose(session, job, "sweep")
        assert job.status == ("failed" if step == 10 else "queued")
    assert "10 attempts were lost since somebody last asked for it" in job.detail
    jobs.retry(session, job, "ann")
    job, attempt = house.claim(session, worker)
    house.tell(session, job, attempt, house.saved(attempt, 11))
    jobs.lose(session, job, "sweep")
    assert job.status == "queued"


def test_saving_again_where_it_resumed_is_no_progress(house, session):
    house.create(session)
    for _ in range(4):
        job, attempt = house.claim(session)
        house.tell(session, job, attempt, house.saved(attempt, 10, "last", "last.ckpt"))
        jobs.lose(session, job, "sweep")
    assert (job.status, job.losses) == ("failed", 3)


def test_a_job_that_was_to_stop_is_stopped_when_it_is_lost(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    runs.stop(session, runs.get(session, job.run_id), "ann")
    jobs.lose(session, job, "sweep")
    assert house.states(session, job)[-4:] == ["stopping", "lost", "queued", "stopped"]
    assert (job.reason, job.detail) == ("lost_while_stopping", "Saved at step 7: it goes on from there.")
    assert job.stop_requested_at is not None
    runs.resume(session, runs.get(session, job.run_id), "ann")
    assert job.resume_from.endswith("step=000007.ckpt")


def test_one_that_had_saved_nothing_says_so(house, session):
    job, _attempt = house.running(session)
    runs.stop(session, runs.get(session, job.run_id), "ann")
    jobs.lose(session, job, "sweep")
    assert (job.reason, job.detail) == ("lost_while_stopping", "Nothing was saved: it would begin at its start.")


def test_two_sweeps_lose_a_job_once(house, session):
    job, _attempt = house.running(session)
    silent(session, job)
    job_id = job.id
    session.commit()
    with house.writing.begin() as first:
        assert jobs.lose(first, jobs.get(first, job_id), "first")
    assert not jobs.lose(session, job, "second")
    session.refresh(job)
    assert (job.status, job.losses) == (JobStatus.queued, 1)


def test_what_a_zombie_says_after_that_is_not_written(house, session):
    job, attempt = house.running(session)
    jobs.lose(session, job, "sweep")
    assert not house.tell(session, job, attempt, Metric(step=1, epoch=0, values={"train_loss": 1.0}))
    house.claim(session)
    assert not house.tell(session, job, attempt, Metric(step=1, epoch=0, values={"train_loss": 1.0}))
    assert session.get_one(Attempt, attempt.id).event_offset == attempt.event_offset
