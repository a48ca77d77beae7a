"""A browser signs in by a link or a token, and what it may do with its cookie."""

import logging
import re
import shutil
from datetime import timedelta

import httpx
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from sqlmodel import select

from app import serve
from app.access import cookies, sessions
from app.access.scope import Scope
from app.models import BrowserSession, SignInLink

HERE = {"Origin": "http://testserver"}


@pytest.fixture
def stranger(house):
    return TestClient(house.app, raise_server_exceptions=False, headers={"Accept": "text/html"}, follow_redirects=False)


def link(house):
    with house.writing.begin() as session:
        return sessions.create_link(session)


def sign_in(client, key, **more):
    return client.post("/sign-in", data={"key": key} | more, headers=HERE)


def follow(client, key, **more):
    """What a browser does with a link, and a person or a script with the form behind it."""
    page = client.get("/sign-in", params={"key": key} | more, follow_redirects=True)
    assert page.status_code == 200 and key not in page.text and key not in str(page.url)
    next_page = re.search(r'name="next" value="([^"]*)"', page.text)[1]
    return client.post("/sign-in", data={"next": next_page}, headers=HERE)


def test_a_link_signs_a_browser_in_and_leads_where_it_was_to_lead(house, stranger):
    answer = follow(stranger, link(house), next="/evals/compare?ids=1,2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/evals/compare?ids=1,2")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
    assert stranger.get("/api/v1/runs").status_code == 200


def test_looking_at_a_link_does_not_use_it_up_and_using_it_does(house, stranger):
    key = link(house)
    previews = [stranger.get("/sign-in", params={"key": key}) for _ in range(2)]
    assert {each.headers["referrer-policy"] for each in previews} == {"no-referrer"}
    assert follow(stranger, key).status_code == 303
    assert list(stranger.cookies) == [house.cookie]
    stranger.cookies.clear()
    again = sign_in(stranger, key)
    assert again.status_code == 401
    assert "panollava link" in again.text and key not in again.text


def age(house, table, by):
    with house.writing.begin() as session:
        for row in session.exec(select(table)):
            row.expires_at -= by


def test_a_link_is_over_after_ten_minutes_and_a_session_after_a_month(house, stranger):
    keys = [link(house), link(house)]
    age(house, SignInLink, timedelta(minutes=9))
    assert sign_in(stranger, keys[0]).status_code == 303
    age(house, SignInLink, timedelta(minutes=1))
    age(house, BrowserSession, timedelta(days=30))
    assert stranger.get("/api/v1/runs").status_code == 401
    assert sign_in(stranger, keys[1]).status_code == 401


def test_behind_tls_the_cookie_travels_only_there(house):
    client = TestClient(house.app, base_url="https://testserver", follow_redirects=False)
    answer = client.post("/sign-in", data={"key": link(house)}, headers={"Origin": "https://testserver"})
    assert "Secure" in answer.headers["set-cookie"] and "panollava_session_443=" in answer.headers["set-cookie"]


def test_two_dashboards_on_one_host_name_do_not_sign_each_other_out(house, serve, tmp_path_factory):
    """As a browser does, the client sends the cookies of one to the other: they ignore ports."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(house.settings.home / "panollava.db", elsewhere)
    other = house.settings.model_copy(update={"home": elsewhere, "database_url": f"sqlite:///{elsewhere / 'panollava.db'}"})
    with serve(house.settings) as mine, serve(other) as theirs, httpx.Client(headers={"Accept": "text/html"}) as browser:
        for served in (mine, theirs):
            with served.app.state.panollava.writing.begin() as session:
                key = sessions.create_link(session)
            assert browser.get(f"{served.url}/sign-in", params={"key": key}, follow_redirects=True).status_code == 200
            assert browser.post(f"{served.url}/sign-in", headers={"Origin": served.url}).headers["location"] == "/"
        assert [browser.get(f"{served.url}/api/v1/runs").status_code for served in (mine, theirs)] == [200, 200]
        browser.post(f"{mine.url}/sign-out", headers={"Origin": mine.url})
        assert [browser.get(f"{served.url}/runs").status_code for served in (mine, theirs)] == [303, 200]


@pytest.mark.parametrize(("host", "port"), [
    ("localhost:7360", "7360"), ("[::1]:7361", "7361"), ("[::1]", "80"), ("localhost", "80"), ("localhost:x", "80"),
])  # fmt: skip
def test_the_port_in_a_cookies_name_is_the_one_that_the_browser_used(host, port):
    request = Request({"type": "http", "scheme": "http", "headers": [(b"host", host.encode())], "server": ("127.0.0.1", 9), "path": "/"})
    assert cookies.session(request) == f"panollava_session_{port}"


def test_a_browser_signed_in_with_a_token_may_do_what_the_token_may_and_no_longer_than_it(house, stranger):
    assert sign_in(stranger, house.read.token).status_code == 303
    assert stranger.get("/api/v1/runs").status_code == 200
    refused = stranger.post("/api/v1/runs", json={}, headers=HERE)
    assert refused.status_code == 403 and "scope launch" in refused.json()["detail"]
    mine = next(each for each in house.admin.get("/tokens").json()["items"] if each["name"] == "test-read")
    house.admin.delete(f"/tokens/{mine['id']}")
    assert stranger.get("/api/v1/runs").status_code == 401


@pytest.mark.parametrize("origin", [{}, {"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Origin": "http://testserver.example"}])
def test_a_form_that_another_site_sent_is_refused(house, origin):
    house.browser.headers.pop("Origin")
    refused = house.browser.post("/api/v1/runs", json={}, headers=origin)
    assert refused.status_code == 403 and "not from a page of this server" in refused.json()["detail"]
    assert house.browser.post("/sign-in", data={"key": link(house)}, headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert house.browser.get("/api/v1/runs").status_code == 200


def test_a_token_in_a_header_needs_no_origin_because_no_browser_sends_it_by_itself(house):
    assert house.launch.post("/runs/1/stop").status_code == 404


@pytest.mark.parametrize("url", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "http:/x"])
def test_sign_in_leads_nowhere_but_here(house, stranger, url):
    assert sign_in(stranger, link(house), next=url).headers["location"] == "/"


def test_signed_out_a_page_leads_to_sign_in_and_back(house, stranger):
    answer = stranger.get("/runs", params={"status": "failed"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fruns%3Fstatus%3Dfailed")
    assert stranger.get("/").headers["location"] == "/sign-in"


def test_signing_out_closes_the_session_for_good(house):
    secret = house.browser.cookies[house.cookie]
    assert str(house.browser.post("/sign-out").url).endswith("/sign-in")
    assert house.browser.get("/api/v1/runs", cookies={house.cookie: secret}).status_code == 401
    assert house.count(BrowserSession) == 0


def test_only_hashes_are_kept(house):
    key = link(house)
    house.browser.get("/api/v1/runs")
    with house.reading() as session:
        kept = [each.hash for table in (SignInLink, BrowserSession) for each in session.exec(select(table))]
    assert len(kept) == 3 and all(len(each) == 64 for each in kept)
    assert not {key, house.browser.cookies[house.cookie]} & set(kept)


def test_the_key_of_a_link_stays_out_of_the_access_log():
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "%s %s %s %s %s", ("me", "GET", "/sign-in?key=secret", "1.1", 200), None)
    assert serve.hide_keys(record)
    assert record.getMessage() == "me GET /sign-in?... 1.1 200"


def test_every_answer_keeps_to_itself(quiet_house):
    for path in ("/sign-in", "/healthz", "/api/v1/runs", "/nowhere"):
        headers = quiet_house.client.get(path).headers
        assert headers["referrer-policy"] == "same-origin"
        assert "default-src 'self'" in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]


def test_static_files_answer_everybody_and_may_be_kept(quiet_house):
    from app.pages import static_url

    answer = quiet_house.client.get(static_url("css/app.css"))
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert quiet_house.client.get("/static/css/app.css").status_code in (401, 404)


def test_scopes_of_a_link_and_of_a_token(house):
    with house.writing.begin() as session:
        opened = {key: sessions.open_session(session, key) for key in (sessions.create_link(session), house.read.token)}
    with house.reading() as session:
        assert [sessions.find(session, secret)[1] for secret in opened.values()] == [Scope.admin, Scope.read]
