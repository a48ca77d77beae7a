"""The list of runs in a browser, and the same questions asked by a script."""

import re
from datetime import timedelta

import pytest
from sqlmodel import update

from app import db
from app.models import Job, JobStatus
from app.runs.table import pages as list_pages
from panollava.events import Progress, StageEvent


def names(html):
    return re.findall(r'<td class="who"><a href="/runs/\d+">([^<]+)</a>', html)


def row(html, run):
    return re.search(rf'<tr id="run-{run["id"]}".*?</tr>', html, re.DOTALL).group()


def without_ages(html):
    return re.sub(r"[^>]+ ago<", "<", html)


@pytest.fixture
def three(house):
    """A run that has failed, one that is at work, one that waits."""
    failed = house.submit(name="first-lora")
    house.claim().end(JobStatus.failed, detail="CUDA out of memory. Tried to allocate 2 GiB\nmore")
    running = house.submit(name="second")
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"), Progress(done=31, total=50, unit="steps", eta_seconds=3480.0))
    return failed, running, house.submit(name="third-lora"), work


def test_every_run_is_a_row_with_its_status_and_what_there_is_to_say_of_it(house, three):
    failed, running, queued, _work = three
    html = house.browser.get("/runs").text
    assert names(html) == ["third-lora", "second", "first-lora"]
    assert "Failed" in row(html, failed) and "CUDA out of memory. Tried to allocate 2 GiB" in row(html, failed) and "more" not in row(html, failed)
    assert "Running" in row(html, running) and "62 %, 58 min left" in row(html, running)
    assert 'aria-label="Resampler running 62 %"' in row(html, running)
    assert "Queued" in row(html, queued) and f"the only x1 worker runs run {running['id']}" in row(html, queued)


def test_a_silent_run_is_never_shown_as_running(house, three):
    with house.writing.begin() as session:
        session.exec(update(Job).where(Job.status == JobStatus.running).values(heartbeat_at=db.now(session) - timedelta(seconds=31)))
    html = house.browser.get("/runs").text
    assert "No heartbeat" in row(html, three[1]) and "Running" not in row(html, three[1])
    assert names(house.browser.get("/runs?status=running").text) == []
    assert names(house.browser.get("/runs?status=lost").text) == ["second"]


def test_search_and_status_narrow_the_list_and_the_counts(house, three):
    html = house.browser.get("/runs?q=LORA").text
    assert names(html) == ["third-lora", "first-lora"]
    counts = dict(re.findall(r">([A-Z][a-z ]+) <span class=\"n\">(\d+)", html))
    assert counts == {"All": "2", "Queued": "1", "Running": "0", "Succeeded": "0", "Failed": "1", "Stopped": "0", "No heartbeat": "0"}
    assert 'href="/runs?q=LORA&amp;status=failed"' in html
    assert names(house.browser.get("/runs?q=lora&status=failed").text) == ["first-lora"]
    assert names(house.browser.get(f"/runs?q={three[1]['id']}").text) == ["second"]


def test_a_form_without_scripts_sends_empty_fields_and_is_understood(house, three):
    assert names(house.browser.get("/runs?q=&status=&sort=").text) == ["third-lora", "second", "first-lora"]
    assert house.browser.get("/runs?status=odd").status_code == 422


def test_a_filter_that_finds_nothing_says_which_and_how_to_clear_it(house, three):
    html = house.browser.get("/runs?q=nothing&status=failed").text
    assert "No run that is called or numbered nothing is shown as “Failed”." in html
    assert '<a class="link" href="/runs">Clear</a>' in html


def test_what_was_searched_for_is_text_and_not_markup(house):
    html = house.browser.get("/runs", params={"q": '"><b>x'}).text
    assert "<b>x" not in html and "&#34;&gt;&lt;b&gt;x" in html


def test_a_house_without_runs_says_what_to_do(house):
    html = house.browser.get("/runs").text
    assert "No runs yet." in html and 'href="/runs/new"' in html and "make demo" in html


def test_columns_sort_both_ways_and_say_which(house, three):
    html = house.browser.get("/runs?sort=name").text
    assert names(html) == ["first-lora", "second", "third-lora"]
    assert 'aria-sort="ascending"><a href="/runs?sort=-name">' in html
    assert names(house.browser.get("/runs?sort=-name").text) == ["third-lora", "second", "first-lora"]


def test_pages_lead_on_and_back_and_keep_the_filter(house, three, monkeypatch):
    monkeypatch.setattr(list_pages, "PER_PAGE", 1)
    html = house.browser.get("/runs?q=lora&sort=name").text
    after = re.search(r'rel="next" href="([^"]+)"', html).group(1).replace("&amp;", "&")
    assert after == f"/runs?q=lora&sort=name&cursor={three[0]['id']}"
    html = house.browser.get(after).text
    assert names(html) == ["third-lora"]
    assert 'rel="next"' not in html and 'href="/runs?q=lora&amp;sort=name"' in html


def test_a_row_is_asked_for_alone_and_is_the_same_piece(house, three):
    _failed, running, _queued, work = three
    page = house.browser.get("/runs").text
    piece = house.browser.get(f"/runs?part=row&id={running['id']}").text
    assert without_ages(piece.strip()) == without_ages(row(page, running))
    assert f"live-progress-{running['id']} from:body, every 5s" in piece
    work.end(JobStatus.failed)
    piece = house.browser.get(f"/runs?part=row&id={running['id']}").text
    assert "Failed" in piece and "every 5s" not in piece
    assert house.browser.get("/runs?part=row&id=99").status_code == 404


def test_new_runs_are_announced_and_not_put_under_the_pointer(house, three):
    newest = three[2]["id"]
    assert f'hx-get="/runs?q=lora&amp;part=statuses&amp;id={newest}"' in house.browser.get("/runs?q=lora").text
    for name in ("fourth-lora", "fifth", "sixth-lora"):
        house.submit(name=name)
    piece = house.browser.get(f"/runs?part=statuses&q=lora&id={newest}").text
    assert "2 new runs" in piece and 'href="/runs?q=lora"' in piece and "<tr" not in piece
    assert "3 new runs" in house.browser.get(f"/runs?part=statuses&id={newest}").text


def test_a_script_can_ask_what_the_page_asks(house, three):
    def found(**query):
        return [run["name"] for run in house.read.get("/runs", **query).json()["items"]]

    assert found() == ["third-lora", "second", "first-lora"]
    assert found(q="lora", sort="name") == ["first-lora", "third-lora"]
    assert found(status="failed") == ["first-lora"]
    assert found(status="running") == ["second"]
    first = house.read.get("/runs", sort="name", limit=2).json()
    assert found(sort="name", limit=2, cursor=first["next_cursor"]) == ["third-lora"]
    assert house.read.get("/runs", status="odd").status_code == 422
    assert house.read.get("/runs", sort="name", cursor=99).json()["detail"] == "cursor: 99 is not the `next_cursor` of a page."
