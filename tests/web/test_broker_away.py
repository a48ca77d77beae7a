"""Redis is gone: everything works, jobs are found later, and every page and health check says so."""

import time

import pytest

from app.housekeeping import doctor
from app.pages import NAVIGATION
from tests.web.conftest import House, settings

UNREACHABLE = "redis+socket:///nowhere/redis.sock?virtual_host=0"
NOTICE = '<p class="notice" data-part="broker">'


@pytest.fixture(scope="module")
def deaf(tmp_path_factory, empty_database):
    """A house whose broker does not answer, which its server has noticed."""
    here = settings(tmp_path_factory.mktemp("deaf"), empty_database)
    house = House(here.model_copy(update={"broker_url": UNREACHABLE}))
    with house.client:
        deadline = time.monotonic() + 60
        while house.client.get("/readyz").json()["status"] == "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield house


@pytest.mark.parametrize("path", [url for url, _icon, _label in NAVIGATION] + ["/queue"])
def test_every_page_goes_on_and_says_that_the_broker_is_away_and_what_that_means(deaf, path):
    page = deaf.browser.get(path)
    assert page.status_code == 200 and NOTICE in page.text
    assert "queued jobs begin up to 10 seconds later, by the workers' own sweep" in page.text.replace("&#39;", "'")
    assert '<p class="notice" data-part="database" hidden>' in page.text


def test_a_run_is_launched_all_the_same_and_its_page_says_that_nobody_was_rung_for(deaf):
    run = deaf.submit()
    page = deaf.browser.get(f"/runs/{run['id']}")
    assert run["status"] == "queued" and NOTICE in page.text
    assert deaf.claim().job_id == run["stages"][0]["job_id"]


def test_health_checks_and_the_doctor_agree(deaf):
    told = deaf.client.get("/readyz")
    assert (told.status_code, told.json()["status"]) == (200, "degraded")
    assert {name: part["status"] for name, part in told.json()["parts"].items()} == {"database": "ok", "writes": "ok", "broker": "away"}
    assert {each.check: each.level for each in doctor.examine(deaf.settings)}["broker"] == "fail"


def test_a_scrape_sees_it(deaf):
    text = deaf.client.get("/metrics", headers={"Authorization": f"Bearer {deaf.read.token}"}).text
    assert "\npanollava_broker_up 0.0\n" in text


def test_without_an_outage_no_notice_is_shown(quiet_house):
    assert quiet_house.browser.get("/").text.count('<p class="notice"') == 3
    assert NOTICE not in quiet_house.browser.get("/").text
