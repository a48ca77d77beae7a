"""What is away is noticed in the background, also when it says nothing at all; and who asks meanwhile is refused at once."""

import asyncio
import threading

import pytest

from app import db, outages
from app.errors import DatabaseAway
from app.outages import Guarded, Outages

UNREACHABLE = "redis+socket:///nowhere/redis.sock?virtual_host=0"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(outages, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(outages, "SILENT_LOOKS", 3)


async def watched(watch, changed, *steps):
    """Each step, and the change that follows it."""
    watching = asyncio.create_task(watch.watch())
    for step in steps:
        step()
        await asyncio.wait_for(changed.wait(), 60)
        changed.clear()
    watching.cancel()


def noticed(trouble, *steps):
    """What was away after each step."""
    told = []

    async def go():
        changed = asyncio.Event()

        def note():
            told.append(list(watch.now()))
            changed.set()

        watch = Outages(lambda: None, None)
        watch.database.trouble, watch.writes.trouble, watch.when_changed = trouble, lambda: None, note
        await watched(watch, changed, *steps)

    asyncio.run(go())
    return told


def test_a_part_is_away_from_the_moment_it_refuses_until_it_answers(quick):
    answers = [None, None, "refused", "refused", None]
    assert noticed(lambda: answers.pop(0) if len(answers) > 1 else answers[0], lambda: None, lambda: None) == [["database"], []]


def test_a_part_that_neither_answers_nor_refuses_is_away_until_it_does(quick):
    thawed = threading.Event()
    assert noticed(lambda: thawed.wait(60) and None, lambda: None, thawed.set) == [["database"], []]


def test_whether_a_database_that_says_nothing_takes_writes_is_not_claimed_to_be_known(quick):
    told = []

    async def go():
        changed, thawed = asyncio.Event(), threading.Event()
        watch = Outages(lambda: None, None)
        watch.database.trouble = watch.writes.trouble = lambda: thawed.wait(60) and None
        watch.when_changed = lambda: (told.append(list(watch.now())), changed.set())
        await watched(watch, changed, lambda: None, thawed.set)

    asyncio.run(go())
    assert told == [["database"], []]


def test_sessions_on_a_database_that_is_away_are_refused_without_asking_it(engine):
    sessions = db.session_factory(engine)
    watch = Outages(sessions, None)
    guarded = Guarded(sessions, watch)
    guarded().close()
    watch._note(watch.database, "refused")
    for verb in (guarded, guarded.begin):
        with pytest.raises(DatabaseAway, match="does not answer"):
            verb()
    watch._note(watch.database, None)
    guarded().close()


def test_a_look_asks_the_database_itself_before_the_watch_has_seen_anything(engine, tmp_path):
    assert Outages(db.session_factory(engine), None).look() == {"database": None, "writes": None}
    empty = db.engine(f"sqlite:///{tmp_path / 'empty.db'}")
    told = Outages(db.session_factory(empty), UNREACHABLE).look()
    assert told["database"] is not None and told["broker"] is None, "the broker is looked at by the watch alone"
    empty.dispose()
