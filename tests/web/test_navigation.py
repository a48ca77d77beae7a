"""What every page has in common."""

import re

import pytest
from sqlalchemy import text

from app.pages import NAVIGATION


@pytest.mark.parametrize("url", [url for url, _icon, _label in NAVIGATION])
def test_every_page_in_the_navigation_answers_and_says_where_one_is(house, url):
    page = house.browser.get(url)
    assert page.status_code == 200
    assert re.findall(r'<a href="([^"]+)" aria-current="page"', page.text) == [url, url]  # in the side bar and in the menu of small screens


def test_no_page_has_a_style_or_a_script_of_its_own_that_the_policy_would_refuse(house):
    for url, _icon, _label in NAVIGATION:
        page = house.browser.get(url).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page), url


NAV = '<nav class="nav"'


def test_a_page_that_is_not_there_is_a_page_in_the_frame_with_a_way_out(house):
    page = house.browser.get("/runs/99")
    assert page.status_code == 404 and NAV in page.text and "<title>Not Found · PanoLLaVA</title>" in page.text
    assert "There is no run 99." in page.text and "may have been deleted" in page.text
    assert '<a href="/runs" aria-current="page"' in page.text and '<a class="btn pri" href="/runs">Go to Runs</a>' in page.text
    assert "data-last-event" not in page.text and 'hx-get="/house" hx-trigger="load,' in page.text


def test_who_is_not_signed_in_sees_a_problem_without_the_frame(house):
    page = house.client.get("/nowhere", headers={"Accept": "text/html"})
    assert page.status_code == 404 and NAV not in page.text and '<a class="btn pri" href="/">Go to Overview</a>' in page.text


def test_a_session_that_is_over_gets_a_problem_without_the_frame(house):
    browser = house.browser
    with house.writing.begin() as session:
        session.execute(text("DELETE FROM browser_session"))
    page = browser.post("/runs/1/stop")
    assert page.status_code == 401 and NAV not in page.text and "Sign in, then do it again." in page.text


@pytest.mark.parametrize(("referer", "way_out"), [
    ("http://testserver/evals?sort=name", "http://testserver/evals?sort=name"),
    ("http://testserver/runs/99", "/runs"),
    ("http://testserver.example/", "/runs"),
    ("javascript://testserver/%0aalert(1)", "/runs"),
    ("http://[", "/runs"),
])  # fmt: skip
def test_a_problem_leads_back_to_the_page_of_ours_that_one_came_from(house, referer, way_out):
    page = house.browser.get("/runs/99", headers={"Referer": referer})
    assert f'<a class="btn pri" href="{way_out}">' in page.text


def test_a_problem_of_the_database_is_shown_in_the_frame_without_asking_it(house):
    browser = house.browser
    with house.writing.begin() as session:
        for table in ("run", "event", "browser_session", "worker"):
            session.execute(text(f"ALTER TABLE {table} RENAME TO {table}_gone"))
    page = browser.get("/runs")
    assert page.status_code == 503 and NAV in page.text
    assert "The database does not answer" in page.text and "Try now" in page.text


def test_a_defect_is_shown_in_the_frame(house):
    house.app.add_api_route("/broken", lambda: 1 / 0)
    page = house.browser.get("/broken")
    assert page.status_code == 500 and NAV in page.text and "as request" in page.text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chosen_theme_is_there_from_the_first_byte(house, theme):
    house.browser.cookies.set("theme", theme)
    assert f'<html lang="en" data-theme="{theme}">' in house.browser.get("/").text


def test_a_theme_that_is_none_is_left_alone(house):
    house.browser.cookies.set("theme", "evil")
    assert "evil" not in house.browser.get("/").text
