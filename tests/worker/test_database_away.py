"""A database that is away, locked or full: the trainer goes on, and its files are read when it is back."""

import sqlite3
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from panollava.events import EVENTS_FILE
from tests import postgres
from worker import outcome
from worker.follow import AWAY


@contextmanager
def away(house):
    """The database refuses everybody, and who waits for it loses patience at once."""
    with locked(house) if house.engine.dialect.name == "sqlite" else refused(house):
        yield


@contextmanager
def locked(house):
    """Another process holds the file."""

    @event.listens_for(house.engine, "checkout")
    def hurry(connection, *_):
        connection.execute("PRAGMA busy_timeout = 50")

    with sqlite3.connect(house.settings.home / "panollava.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    other.close()


@contextmanager
def refused(house):
    """The server ends every session and begins none."""
    url = house.engine.url
    server = url.set(database="postgres").render_as_string(hide_password=False)
    postgres.administer(server, f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false")
    postgres.administer(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{url.database}'")
    yield
    postgres.administer(server, f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true")


@contextmanager
def unwritable(house):
    """It answers, and takes no write: its disk is full, say, or it is the replica of one that has failed."""
    if house.engine.dialect.name == "sqlite":
        with locked(house):
            yield
        return

    def read_only(connection):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    event.listen(house.engine, "begin", read_only)
    yield
    event.remove(house.engine, "begin", read_only)


@pytest.mark.parametrize("away", [away, unwritable])
def test_a_trainer_goes_on_without_the_database_and_nothing_it_wrote_is_lost(house, away):
    job_id = house.submit("slow", steps=60)
    thread = threading.Thread(target=house.work().take)
    thread.start()
    house.until(lambda: house.stored_points(job_id), "points are stored")
    told = house.directory(job_id) / EVENTS_FILE
    with away(house):
        assert outcome.last_word(told).status == "started"
        house.until(lambda: outcome.last_word(told).status != "started", "the trainer has ended")
    thread.join(60)
    assert house.states(job_id) == ["queued", "starting", "running", "succeeded"]
    house.assert_nothing_lost(job_id)


def test_a_claim_that_the_database_refuses_is_an_error_for_the_next_sweep(house):
    job_id = house.submit("steady")
    work = house.work()
    with away(house), pytest.raises(AWAY):
        work.take()
    work.take()
    assert house.job(job_id).status == "succeeded"


def test_a_worker_that_leaves_does_not_wait_for_the_database_and_its_successor_brings_in_the_rest(house):
    job_id = house.submit("slow", steps=1000)
    leaver = house.work()
    raised = []

    def take():
        with pytest.raises(AWAY) as error:
            leaver.take()
        raised.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    house.until(lambda: house.checkpoints(job_id), "a checkpoint is there")
    with away(house):
        leaver.leaving.set()
        thread.join(60)
    assert raised and house.job(job_id).status == "running"
    house.work().take()
    assert house.states(job_id) == ["queued", "starting", "running", "lost", "queued", "starting", "running", "succeeded"]
    assert house.attempts(job_id)[1].resumed_step == house.written_points(job_id)[-1][0]
    house.assert_nothing_lost(job_id)
