"""PostgreSQL is stopped under a server: every page says so at once, scripts get a code, open streams wait and miss nothing."""

import os
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app import db, outages
from app.client import parse_events
from app.events import stream
from app.housekeeping import doctor
from app.pages import NAVIGATION
from app.settings import Settings
from panollava.events import Metric, StageEvent
from tests import postgres
from tests.tables import write_table
from tests.web.conftest import House

pytestmark = pytest.mark.postgres

PROMPT = 9.0
"""Seconds: less than anybody waits for a connection, and more than a machine stalls."""
PAGES = [*(url for url, _icon, _label in NAVIGATION), "/runs/1", "/runs/1?tab=timeline", "/queue", "/house", "/evals/new", "/sign-in", "/metrics"]


@pytest.fixture(scope="module")
def shared(mortal_postgres, tmp_path_factory):
    """One house for this file; a run waits in it."""
    home = tmp_path_factory.mktemp("away")
    write_table(home, "train")
    with postgres.database(mortal_postgres.url) as url:
        db.migrate(url)
        house = House(Settings(home=home, roots=[home], database_url=url, allowed_hosts=["testserver", "127.0.0.1"]))
        with house.client:
            house.submit()
            assert house.browser.get("/runs/1").status_code == 200
            yield house


@pytest.fixture(scope="module")
def away(shared, mortal_postgres):
    """The same, while its database is stopped."""
    with stopped(mortal_postgres):
        until(lambda: shared.client.get("/readyz").status_code == 503)
        yield shared
    until(lambda: shared.client.get("/readyz").status_code == 200)


@contextmanager
def stopped(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


def until(look):
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def timed(ask, *args, **more):
    began = time.monotonic()
    answer = ask(*args, **more)
    assert time.monotonic() - began < PROMPT
    return answer


# Before `away` stops the database for the rest of this file


def test_an_open_stream_tells_of_the_outage_and_goes_on_without_gap_or_repeat(shared, serve, mortal_postgres, monkeypatch):
    monkeypatch.setattr(stream, "PING_SECONDS", 0.2)  # whether its listener may still listen is asked during the outage too
    monkeypatch.setattr(stream, "AWAY_SECONDS", 0.2)
    work = shared.claim()
    work.say(StageEvent(name="resampler", status="started"))
    with serve(shared.settings) as served, listening(served, shared) as events:
        next(events)
        work.say(Metric(step=1, epoch=0.1, values={"train_loss": 1.0}))
        heard = heard_until(events, lambda event: event.kind == "metric")
        with stopped(mortal_postgres):
            (*_pings, went) = heard_until(events, lambda event: event.kind == "outages")
            assert list(went.data) == ["database"] and datetime.fromisoformat(went.data["database"])
            assert {next(events).kind for _ in range(4)} == {"ping"}
        heard += heard_until(events, lambda event: event.kind == "outages" and event.data == {})
        for step in (2, 3):
            work.say(Metric(step=step, epoch=0.1, values={"train_loss": 1.0}))
        for _ in range(2):
            heard += heard_until(events, lambda event: event.kind == "metric")
    steps = [event.data["payload"]["points"]["train_loss"][0][0] for event in heard if event.kind == "metric"]
    ids = [event.id for event in heard if event.kind == "metric"]
    assert steps == [1, 2, 3] and ids == sorted(set(ids))


@contextmanager
def listening(served, house):
    headers = {"Authorization": f"Bearer {house.read.token}"}
    with httpx.stream("GET", f"{served.url}/api/v1/events", headers=headers, timeout=60) as response:
        yield parse_events(response.iter_lines())


def heard_until(events, is_it):
    heard = []
    while not heard or not is_it(heard[-1]):
        heard.append(next(events))
    return heard


def test_a_database_that_is_frozen_and_refuses_nobody_holds_up_no_page_once_that_is_known(shared, mortal_postgres, monkeypatch):
    until(lambda: shared.client.get("/readyz").status_code == 200)
    monkeypatch.setattr(outages, "SILENT_LOOKS", 2)
    with frozen(mortal_postgres.process.pid):
        until(shared.app.state.panollava.outages.now)
        for _ in range(20):  # more than the pool has connections
            assert timed(shared.browser.get, "/runs").status_code == 503
    until(lambda: shared.browser.get("/runs").status_code == 200)


@contextmanager
def frozen(postmaster):
    """With all of its children."""
    stats = [path.read_text().rpartition(")") for path in Path("/proc").glob("[0-9]*/stat")]
    processes = [postmaster, *(int(head.split()[0]) for head, _, rest in stats if int(rest.split()[1]) == postmaster)]
    for each in processes:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in processes:
            os.kill(each, signal.SIGCONT)


# While it is stopped


@pytest.mark.parametrize("path", PAGES)
def test_every_page_says_at_once_which_part_is_down_since_when_and_that_trainings_go_on(away, path):
    page = timed(away.browser.get, path)
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert "<h1>" in page.text and "The database does not answer" in page.text
    assert "Trainings at work go on." in page.text and "panollava doctor" in page.text
    since = page.text.split('<time datetime="')[1].split('"')[0]
    assert timedelta() < datetime.now(UTC) - datetime.fromisoformat(since) < timedelta(minutes=10)
    assert "data-reload" in page.text and 'http-equiv="refresh"' in page.text, "it comes back by itself, also without scripts"


def test_a_form_that_was_sent_is_not_sent_again_by_itself_and_its_fate_is_not_claimed_to_be_known(away):
    page = timed(away.browser.post, "/runs/1/stop")
    assert page.status_code == 503 and "Whether what you sent was stored is not known." in page.text
    assert "data-reload" not in page.text and 'http-equiv="refresh"' not in page.text


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/runs"), ("GET", "/runs/1/metrics"), ("POST", "/runs"), ("POST", "/runs/1/stop"), ("GET", "/events")]
)
def test_scripts_get_a_problem_document_with_a_code(away, method, path):
    answer = timed(away.launch.request, method, path, json={"config": {"csv_train": away.table, "csv_val": away.table}} if method == "POST" else None)
    assert (answer.status_code, answer.headers["content-type"], answer.headers["Retry-After"]) == (503, "application/problem+json", "5")
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (503, "database_away") and datetime.fromisoformat(problem["since"])


def test_a_piece_of_a_page_gets_the_document_too(away):
    answer = timed(away.browser.get, "/house", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.json()["code"]) == (503, "database_away")


def test_health_checks_and_the_doctor_agree_on_what_is_away(away):
    assert away.client.get("/healthz").status_code == 200
    told = away.client.get("/readyz")
    assert (told.status_code, told.json()["status"], told.json()["parts"]["database"]["status"]) == (503, "down", "away")
    assert {each.check: each.level for each in doctor.examine(away.settings)}["database"] == "fail"
