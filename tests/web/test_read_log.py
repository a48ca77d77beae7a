"""What a run's trainer printed: read from any byte or line, searched, taken away whole."""

import random
import re

import pytest

from app.models import JobStatus, Run
from app.runs import service as runs
from panollava.events import StageEvent


@pytest.fixture
def at_work(house):
    run = house.submit()
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"))
    return run["id"], work


def test_a_log_is_read_from_any_byte_and_from_its_end(house, at_work):
    run_id, work = at_work
    work.print("one\ntwo\nthree\n")
    first = house.read.get(f"/runs/{run_id}/logs", limit=5).json()
    assert (first["text"], first["next"], first["end"], first["stage"]) == ("one\nt", 5, 14, "resampler")
    rest = house.read.get(f"/runs/{run_id}/logs", offset=first["next"]).json()
    assert (rest["text"], rest["next"], rest["line"], rest["lines"]) == ("wo\nthree\n", 14, 2, 3)
    assert house.read.get(f"/runs/{run_id}/logs", tail=6, stage="resampler").json()["text"] == "three\n"


def test_a_log_can_be_read_by_whole_lines_and_from_a_line_on(house, at_work):
    run_id, work = at_work
    work.print("one\ntwo\nthree\n")
    part = house.read.get(f"/runs/{run_id}/logs", tail=8, whole_lines=True).json()
    assert (part["offset"], part["line"], part["text"]) == (8, 3, "three\n")
    part = house.read.get(f"/runs/{run_id}/logs", line=2).json()
    assert (part["offset"], part["line"], part["text"]) == (4, 2, "two\nthree\n")


def test_a_log_is_searched_line_by_line_and_further_on(house, at_work):
    run_id, work = at_work
    for number in range(3):
        work.print(f"step {number}\nLoss [é] {number}\nhalf a ")
    found = house.read.get(f"/runs/{run_id}/logs", q="loss [É]", limit=2).json()
    assert [(line["line"], line["text"]) for line in found["lines"]] == [(2, "Loss [é] 0"), (4, "Loss [é] 1")]
    more = house.read.get(f"/runs/{run_id}/logs", q="loss [é]", offset=found["next"]).json()
    assert [(line["line"], line["text"]) for line in more["lines"]] == [(6, "Loss [é] 2")]
    assert house.read.get(f"/runs/{run_id}/logs", q="half a step").json()["lines"][0]["offset"] == len("step 0\nLoss [é] 0\n".encode())
    assert len(house.read.get(f"/runs/{run_id}/logs", q="half").json()["lines"]) == 3


def test_warnings_and_errors_are_found_by_their_level(house, at_work):
    run_id, work = at_work
    work.print("12:00:00 I step 1\n12:00:01 W loss is high\n12:00:02 W lr is low\nValueError: no\n")

    def found(**more):
        return [line["line"] for line in house.read.get(f"/runs/{run_id}/logs", **more).json()["lines"]]

    assert found(level="warning") == [2, 3]
    assert found(level="error") == [4]
    assert found(level="warning", q="LOSS") == [2]
    assert house.read.get(f"/runs/{run_id}/logs", level="info").status_code == 422


def test_a_stage_that_has_not_begun_has_no_log_and_neither_has_an_attempt_that_never_was(house):
    run = house.submit(stage="all")
    answer = house.read.get(f"/runs/{run['id']}/logs", stage="finetune")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Stage finetune of run {run['id']} has not begun.")
    for path in ("logs", "logs/download"):
        answer = house.read.get(f"/runs/{run['id']}/{path}", attempt=2)
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no attempt 2; the newest is 0.")


@pytest.mark.parametrize("end", [None, JobStatus.failed, JobStatus.stopped])
def test_the_whole_log_can_be_taken_away_in_every_state(house, at_work, end):
    run_id, work = at_work
    text = "".join(f"step {number} {random.Random(number).random()} ä€\r\n" for number in range(10_000))
    for start in range(0, len(text), 50_000):
        work.print(text[start : start + 50_000])
    if end:
        work.end(end)
    answer = house.read.get(f"/runs/{run_id}/logs/download", stage="resampler", attempt=1)
    assert answer.status_code == 200
    assert answer.content == text.encode()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="run-{run_id}-resampler-attempt-1.log"'


def test_a_run_that_waits_has_an_empty_log_to_take_away(house):
    run = house.submit()
    answer = house.read.get(f"/runs/{run['id']}/logs/download")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_older_attempt_keeps_its_log(house, at_work):
    run_id, work = at_work
    work.print("first\n")
    work.end(JobStatus.stopped)
    with house.writing.begin() as session:
        runs.resume(session, session.get_one(Run, run_id), actor="ann")
    house.claim().print("second\n")
    assert house.read.get(f"/runs/{run_id}/logs/download").text == "second\n"
    assert house.read.get(f"/runs/{run_id}/logs/download", attempt=1).text == "first\n"


def test_the_page_shows_the_end_of_the_log_without_scripts(house, at_work):
    run_id, work = at_work
    before = house.browser.get(f"/runs/{run_id}").text
    assert 'data-empty="Nothing has been printed yet."></div>' in before
    work.print("\x1b[31m<b>red</b>\x1b[0m\n 1%\r 2%\n\n12:00:00 W hot\n")
    page = house.browser.get(f"/runs/{run_id}").text
    for row in (
        '<div data-line="1">&lt;b&gt;red&lt;/b&gt;</div>', '<div data-line="2"> 2%</div>', '<div data-line="3">\n</div>',
        '<div data-line="4" class="warning">12:00:00 W hot</div>',
    ):  # fmt: skip
        assert row in page
    assert f'href="/api/v1/runs/{run_id}/logs/download?stage=resampler"' in page
    assert "4 lines · 44 B" in page


def test_a_browser_takes_the_log_away_with_its_cookie(house, at_work):
    run_id, work = at_work
    work.print("one\n")
    assert house.browser.get(f"/api/v1/runs/{run_id}/logs/download?stage=resampler").text == "one\n"


def test_the_page_offers_the_logs_of_the_stages_that_have_begun(house):
    run = house.submit(stage="all")
    page = house.browser.get(f"/runs/{run['id']}").text
    links = re.findall(r'<a href="([^"]+)" data-stage="(\w+)" data-attempts="(\d+)"( aria-current="true")?( hidden)?>', page)
    assert links == [
        (f"/runs/{run['id']}?log_stage=vision#log", "vision", "0", ' aria-current="true"', ""),
        (f"/runs/{run['id']}?log_stage=resampler#log", "resampler", "0", "", " hidden"),
        (f"/runs/{run['id']}?log_stage=finetune#log", "finetune", "0", "", " hidden"),
    ]
