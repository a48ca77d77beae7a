"""Two who want the same rows wait for each other in one order: locks by name first, rows after them. PostgreSQL would end one of them otherwise."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select

from app.checkpoints import exports, retention
from app.errors import Conflict, NotFound
from app.evaluations import service as evaluations
from app.jobs import order
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Checkpoint, Evaluation, Job, JobStatus, Run
from app.runs import changes, removal
from app.runs import service as runs
from panollava.config import EvaluateConfig
from tests.app.test_retry_stage import BOTH, trained

pytestmark = [pytest.mark.postgres, pytest.mark.parametrize("kind", ["postgresql"], indirect=True)]
BLOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture
def meanwhile(house):
    """A verb in a transaction of its own, begun in a thread, which waits for a lock when this returns."""
    with ThreadPoolExecutor(1) as pool:

        def begin(verb: Callable) -> Future:
            def act() -> None:
                with house.writing.begin() as session:
                    verb(session)

            future = pool.submit(act)
            until_somebody_waits(house, future)
            return future

        yield begin


def until_somebody_waits(house, future: Future) -> None:
    deadline = time.monotonic() + 60
    with house.reading() as session:
        while not session.scalar(BLOCKED):
            assert not future.done(), "it waited for nobody"
            assert time.monotonic() < deadline
            session.rollback()  # what the view shows is kept as long as a transaction
            time.sleep(0.01)


def test_a_new_priority_of_a_run_and_one_of_its_job_are_given_one_after_the_other(house, session, meanwhile):
    run = house.create(session)
    session.commit()
    order.lock(session)
    other = meanwhile(lambda theirs: changes.update(theirs, theirs.get_one(Run, run.id), "bob", name="better", priority=7))
    order.prioritise(session, session.exec(select(Job)).one(), "ann", 5)
    session.commit()
    other.result(60)
    session.expire_all()
    assert (run.priority, run.name, session.exec(select(Job.priority)).one()) == (7, "better", 7)


def test_a_run_that_is_being_deleted_is_not_exported_from(house, session, meanwhile):
    run = trained(house, session, "resampler")
    saved = session.exec(select(Checkpoint).where(Checkpoint.kind == "epoch")).one()
    session.commit()
    runs.hold(session, run)
    other = meanwhile(lambda theirs: exports.export(theirs, theirs.get_one(Checkpoint, saved.id), "bob"))
    removal.delete_run(session, run, house.settings.artifacts)
    session.commit()
    with pytest.raises(NotFound, match="There is no run 1"):
        other.result(60)


def test_a_run_whose_checkpoint_somebody_is_about_to_evaluate_is_not_deleted_with_the_evaluation(house, session, meanwhile):
    trained(house, session, "resampler")
    session.commit()
    path = session.exec(select(Checkpoint.path).where(Checkpoint.kind == "epoch")).one()
    config = EvaluateConfig(checkpoint=path, csv=str(house.root / "test.csv"))
    asked = evaluations.create(session, config, house.settings, "ann")
    other = meanwhile(lambda theirs: removal.delete_run(theirs, theirs.get_one(Run, 1), house.settings.artifacts, force=True))
    session.commit()
    with pytest.raises(Conflict, match="Run 1 has a job that is queued"):
        other.result(60)
    with house.reading() as reading:
        assert reading.get(Evaluation, asked.id)


@pytest.mark.parametrize("remove", [retention.delete, lambda theirs, saved: retention.apply(theirs, theirs.get_one(Run, 1), retention.Rule(steps=0))])
def test_a_checkpoint_that_somebody_is_about_to_pin_is_not_removed(house, session, meanwhile, remove):
    job, attempt = house.running(session)
    steps = [house.saved(attempt, step) for step in (1, 2)]
    house.tell(session, job, attempt, *steps)
    jobs.lose(session, job, "test")
    jobs.request_stop(session, job, "ann")
    session.commit()
    saved = session.exec(select(Checkpoint).where(Checkpoint.step == 1)).one()
    retention.pin(session, saved, pinned=True)
    other = meanwhile(lambda theirs: remove(theirs, theirs.get_one(Checkpoint, saved.id)))
    session.commit()
    with suppress(Conflict):  # a rule leaves it, where who names it is refused
        other.result(60)
    with house.reading() as reading:
        assert reading.get_one(Checkpoint, saved.id).pinned and Path(saved.path).exists()


def test_a_stop_that_meets_the_end_of_a_stage_stops_the_next_one(house, session, meanwhile):
    job, attempt = house.running(session, BOTH)
    best = house.saved(attempt, 5, "epoch", val_loss=1.0)
    house.tell(session, job, attempt, best)
    session.commit()
    finish(session, job.id, attempt.number, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    other = meanwhile(lambda theirs: runs.stop(theirs, theirs.get_one(Run, job.run_id), "ann"))
    session.commit()
    other.result(60)
    with house.reading() as reading:
        assert list(reading.exec(select(Job.status).order_by(Job.id))) == ["succeeded", "stopped"]


def test_a_save_that_meets_the_loss_of_the_job_is_refused_and_not_left_to_the_next_attempt(house, session, meanwhile):
    job, _attempt = house.running(session)
    session.commit()
    jobs.lose(session, job, "test")
    other = meanwhile(lambda theirs: jobs.request_save(theirs, theirs.get_one(Job, job.id), "ann"))
    session.commit()
    with pytest.raises(Conflict, match="Job 1 is queued; there is nothing to save"):
        other.result(60)
    with house.reading() as reading:
        assert reading.get_one(Job, job.id).save_requested_at is None
