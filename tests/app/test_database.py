"""What the rest of the house may rely on, whichever database it is."""

import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import select

from app import db
from app.models import Run


def run(session, name="one"):
    return Run(name=name, config={}, request_hash="", created_at=db.now(session), created_by="ann")


def test_times_come_from_the_databases_clock_in_utc_to_the_millisecond(house, session):
    first, _pause, second = db.now(session), time.sleep(0.005), db.now(session)
    assert first < second
    assert first.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)
    assert any(db.now(session).microsecond for _ in range(1000))  # three times in one millisecond may all be on the second


def test_a_time_comes_back_as_it_was_stored(house):
    at = datetime(2026, 11, 23, 10, 15, 0, 123456, UTC)
    with house.writing.begin() as session:
        stored = run(session)
        stored.created_at = at.astimezone(datetime.strptime("+0530", "%z").tzinfo)
        session.add(stored)
    with house.reading() as session:
        back = session.exec(select(Run.created_at)).one()
        assert (back, back.utcoffset()) == (at, timedelta(0))


def test_a_readers_session_cannot_write(house):
    with house.reading() as session, pytest.raises(DBAPIError, match=r"(?i)read-?only"):
        session.add(run(session))
        session.flush()
    with house.writing.begin() as session:  # the same pooled connection can again
        session.add(run(session))


def test_a_reader_does_not_wait_for_a_writer(house):
    with house.writing() as writer:
        writer.add(run(writer))
        writer.flush()
        with house.reading() as reader:
            assert reader.exec(select(Run)).all() == []


def test_writers_that_first_read_wait_for_each_other_and_do_not_fail(house):
    """On SQLite a transaction that read before another one wrote could never write; here it waits at its start."""
    errors = []

    def add(name):
        try:
            for _ in range(10):
                with house.writing.begin() as session:
                    session.exec(select(Run)).all()
                    time.sleep(0.001)
                    session.add(run(session, name))
        except DBAPIError as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=[f"thread-{n}"]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with house.reading() as session:
        assert len(session.exec(select(Run)).all()) == 40


def test_who_holds_a_lock_passes_alone(house):
    passed = []

    def late():
        with house.writing.begin() as session:
            db.lock(session, "door")
            passed.append("second")

    with house.writing.begin() as session:
        db.lock(session, "door")
        thread = threading.Thread(target=late)
        thread.start()
        time.sleep(0.1)
        passed.append("first")
    thread.join()
    assert passed == ["first", "second"]


@pytest.mark.postgres
def test_both_ends_of_a_connection_give_each_other_up_within_20_seconds_unless_the_url_says_otherwise(postgres_url):
    def connected(url):
        engine = db.engine(url)
        with engine.connect() as connection:
            ours = connection.connection.driver_connection.info.get_parameters()
            theirs = connection.execute(text("SELECT name, source FROM pg_settings WHERE name LIKE 'tcp%' ORDER BY name")).all()
        engine.dispose()
        return {name: int(ours[name]) for name in db.CUT_OFF}, theirs

    names = ["tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_user_timeout"]
    assert connected(postgres_url) == (db.CUT_OFF, [(name, "session") for name in names])
    mark = "&" if "?" in postgres_url else "?"
    ours, _theirs = connected(f"{postgres_url}{mark}keepalives_idle=60&connect_timeout=9")
    assert ours == db.CUT_OFF | {"keepalives_idle": 60, "connect_timeout": 9}


def test_a_new_file_that_another_process_is_just_making_is_waited_for(tmp_path):
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    engine = db.engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
    timer.join()
    engine.dispose()
    other.close()
