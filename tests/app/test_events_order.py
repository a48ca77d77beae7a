"""A reader that asks for what is newer than the last id it saw misses nothing and gets nothing twice."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlmodel import select, update

from app import db
from app.events import service as events
from app.models import Event


def emit(session, *texts, run_id=None):
    for text in texts:
        db.emit(session, "note", {"text": text}, run_id=run_id)


def texts(found):
    return [event.payload["text"] for event in found]


def test_events_come_in_the_order_they_were_told_when_the_transaction_commits(house):
    with house.writing() as session:
        emit(session, "one", "two")
        assert events.after(session, 0) == []
        session.commit()
        emit(session, "three")
        session.commit()
    with house.reading() as session:
        assert texts(events.after(session, 0)) == ["one", "two", "three"]
        assert texts(events.after(session, 0, limit=1)) == ["one"]
        assert texts(events.after(session, events.latest(session) - 1)) == ["three"]


def test_what_was_rolled_back_is_not_told(house):
    with house.writing() as session:
        emit(session, "never")
        session.rollback()
        emit(session, "nor this")
    with house.writing.begin() as session:
        emit(session, "this")
    with house.reading() as session:
        assert texts(events.after(session, 0)) == ["this"]


def test_an_event_cannot_be_told_inside_of_a_savepoint(house):
    with house.writing() as session, session.begin_nested(), pytest.raises(RuntimeError, match="savepoint"):
        emit(session, "perhaps")


def test_each_run_can_be_followed_alone(house):
    with house.writing.begin() as session:
        emit(session, "mine", run_id=1)
        emit(session, "yours", run_id=2)
        emit(session, "everybody's")
    with house.reading() as session:
        assert texts(events.after(session, 0, run_id=1)) == ["mine"]


def test_many_writers_and_a_reader_that_never_looks_back(house):
    """Ids are taken in commit order: the reader sees all 400 events of 8 writers although it never asks for older ones again."""
    seen, done = [], threading.Event()

    def write(writer):
        for number in range(25):
            with house.writing.begin() as session:
                emit(session, f"{writer}-{number}-a")
                session.exec(select(Event.id).limit(1)).all()
                emit(session, f"{writer}-{number}-b")

    def read():
        last, finished = 0, False
        while not finished:
            finished = done.is_set()
            with house.reading() as session:
                fresh = events.after(session, last)
            assert [event.id for event in fresh] == sorted(event.id for event in fresh)
            seen.extend(texts(fresh))
            last = fresh[-1].id if fresh else last

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        for writing in [pool.submit(write, writer) for writer in range(8)]:
            writing.result()
        done.set()
        reader.result()
    assert sorted(seen) == sorted(f"{writer}-{number}-{part}" for writer in range(8) for number in range(25) for part in "ab")
    for writer in range(8):
        mine = [text for text in seen if text.startswith(f"{writer}-")]
        assert mine == sorted(mine, key=lambda text: (int(text.split("-")[1]), text[-1]))


def test_numbers_that_json_does_not_know_survive(house):
    with house.writing.begin() as session:
        db.emit(session, "metric", {"points": [[1, 0.5, math.nan], [2, 0.6, -math.inf]], "nested": {"deep": (math.inf,)}})
    with house.reading() as session:
        (event,) = events.after(session, 0)
    assert event.payload == {"points": [[1, 0.5, "NaN"], [2, 0.6, "-Infinity"]], "nested": {"deep": ["Infinity"]}}
    assert math.isnan(float(event.payload["points"][0][2]))


def test_old_events_are_forgotten_but_their_ids_are_not_used_again(house):
    with house.writing.begin() as session:
        emit(session, "old", "older", "newest of the old")
    with house.writing.begin() as session:
        session.exec(update(Event).values(at=db.now(session) - timedelta(days=1)))
        assert events.prune(session) == 2
    with house.writing.begin() as session:
        assert events.latest(session) == 3
        emit(session, "new")
    with house.reading() as session:
        assert [(event.id, event.payload["text"]) for event in events.after(session, 0)] == [(3, "newest of the old"), (4, "new")]
