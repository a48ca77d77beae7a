"""A database that is away, locked or full: the trainer goes on, and its files are read when it is back."""

import sqlite3
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from worker.follow import AWAY


@contextmanager
def locked(house):
    """Another process holds the database; who waits for it loses patience at once."""

    @event.listens_for(house.engine, "checkout")
    def hurry(connection, *_):
        connection.execute("PRAGMA busy_timeout = 50")

    with sqlite3.connect(house.settings.home / "panollava.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    other.close()


def test_a_trainer_goes_on_without_the_database_and_nothing_it_wrote_is_lost(house):
    job_id = house.submit("slow", steps=60)
    thread = threading.Thread(target=house.work().take)
    thread.start()
    house.until(lambda: house.stored_points(job_id), "points are stored")
    with locked(house):
        stored = len(house.stored_points(job_id))
        house.until(lambda: len(house.written_points(job_id)) == 60, "the trainer has ended")
        assert len(house.stored_points(job_id)) == stored
    thread.join(20)
    assert house.states(job_id) == ["queued", "starting", "running", "succeeded"]
    house.assert_nothing_lost(job_id)


def test_a_claim_that_the_database_refuses_is_an_error_for_the_next_sweep(house):
    job_id = house.submit("steady")
    work = house.work()
    with locked(house), pytest.raises(AWAY):
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
    with locked(house):
        leaver.leaving.set()
        thread.join(20)
    assert raised and house.job(job_id).status == "running"
    house.work().take()
    assert house.states(job_id) == ["queued", "starting", "running", "lost", "queued", "starting", "running", "succeeded"]
    assert house.attempts(job_id)[1].resumed_step == house.written_points(job_id)[-1][0]
    house.assert_nothing_lost(job_id)
