"""Two who want the same rows wait for each other in one order: locks by name first, rows after them. PostgreSQL would end one of them otherwise."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlmodel import select

from app.checkpoints import exports
from app.errors import NotFound
from app.jobs import order
from app.models import Checkpoint, Job, Run
from app.runs import changes, removal
from app.runs import service as runs
from tests.app.test_retry_stage import trained

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
            deadline = time.monotonic() + 60
            with house.reading() as session:
                while not session.scalar(BLOCKED):
                    assert not future.done(), "it waited for nobody"
                    assert time.monotonic() < deadline
                    session.rollback()  # what the view shows is kept as long as a transaction
                    time.sleep(0.01)
            return future

        yield begin


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
