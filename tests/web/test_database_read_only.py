"""A PostgreSQL that may only be read, as a standby or one that is failed over: pages are read on, and what is sent is refused with the reason."""

import time
from contextlib import contextmanager
from datetime import datetime

import pytest
from sqlalchemy import make_url

from app import db
from app.housekeeping import doctor
from app.pages import NAVIGATION
from app.settings import Settings
from tests import postgres
from tests.tables import write_table
from tests.web.conftest import House

pytestmark = pytest.mark.postgres

NOTICE = '<p class="notice" data-part="writes">'


@contextmanager
def standby(server, _database):
    """It replays what a server writes that is none, until it is promoted."""
    server.stop()
    (server.home / "data" / "standby.signal").touch()
    server.start()
    yield
    postgres.administer(server.url, "SELECT pg_promote()")


@contextmanager
def told_so(server, database):
    """By a setting, as while it is moved to another machine."""
    for value in ("on", "off"):
        postgres.administer(server.url, f"ALTER DATABASE {database} SET default_transaction_read_only = {value}")
        postgres.administer(server.url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        if value == "on":
            yield


@pytest.fixture(scope="module", params=[standby, told_so])
def read_only(request, mortal_postgres, tmp_path_factory):
    """A house with a run, in whose database nothing can be written any more, which its server knows. In the end it can, and all goes on."""
    home = tmp_path_factory.mktemp("read-only")
    write_table(home, "train")
    with postgres.database(mortal_postgres.url) as url:
        db.migrate(url)
        house = House(Settings(home=home, roots=[home], database_url=url, allowed_hosts=["testserver"]))
        with house.client:
            house.submit()
            assert house.browser.get("/runs/1").status_code == 200
            with request.param(mortal_postgres, make_url(url).database):
                until(house, "degraded")
                yield house
            until(house, "ok")
            assert NOTICE not in house.browser.get("/runs").text
            assert house.launch.post("/runs/1/stop").status_code == 202


def until(house, status):
    deadline = time.monotonic() + 60
    while house.client.get("/readyz").json()["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("path", [*(url for url, _icon, _label in NAVIGATION), "/runs/1", "/runs/1?tab=timeline", "/queue"])
def test_every_page_goes_on_and_says_that_the_database_can_only_be_read(read_only, path):
    page = read_only.browser.get(path)
    assert page.status_code == 200 and NOTICE in page.text
    assert '<p class="notice" data-part="database" hidden>' in page.text


def test_a_form_is_refused_with_a_page_that_says_why_and_that_nothing_was_stored(read_only):
    page = read_only.browser.post("/runs/1/stop")
    assert page.status_code == 503 and "The database can only be read at this moment: nothing of what you sent was stored." in page.text
    assert "Runs at work go on." in page.text and "This is a defect" not in page.text
    assert read_only.read.get("/runs/1").json()["status"] == "queued"


def test_scripts_get_a_problem_document_with_a_code_of_its_own(read_only):
    config = {"csv_train": read_only.table, "csv_val": read_only.table}
    for path, body in (("/runs", {"config": config}), ("/runs/1/stop", None), ("/queue/pause", {"queue": "all"})):
        answer = read_only.launch.post(path, body)
        assert (answer.status_code, answer.headers["content-type"], answer.headers["Retry-After"]) == (503, "application/problem+json", "5")
        problem = answer.json()
        assert (problem["status"], problem["code"]) == (503, "database_read_only") and datetime.fromisoformat(problem["since"])


def test_a_token_that_would_be_marked_as_used_reads_all_the_same(read_only, monkeypatch):
    monkeypatch.setattr("app.access.service.find", _stale(read_only))
    assert read_only.read.get("/runs").status_code == 200
    monkeypatch.setattr(read_only.app.state.panollava.outages.writes, "since", None)  # before the watch has seen it
    assert read_only.read.get("/runs").status_code == 200


def _stale(house):
    from app.access.service import find

    return lambda session, secret: (find(session, secret)[0], True)


def test_health_checks_and_the_doctor_agree(read_only):
    told = read_only.client.get("/readyz")
    assert (told.status_code, told.json()["status"]) == (200, "degraded")
    assert {name: part["status"] for name, part in told.json()["parts"].items()} == {"database": "ok", "writes": "away"}
    assert {each.check: each.level for each in doctor.examine(read_only.settings)}["database writes"] == "fail"
