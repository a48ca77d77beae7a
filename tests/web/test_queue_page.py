"""The page of the queue and what people do to it, by form and by API."""

import re

import pytest
from sqlmodel import select

from app import db
from app.models import Event, Worker
from app.pages import STATIC

NAMES = ("first", "second", "third")


@pytest.fixture
def three(house):
    for name in NAMES:
        house.submit(name=name)
    return house


def page(house):
    answer = house.browser.get("/queue")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.text)


def order(house):
    return re.findall(r">(first|second|third)</a>", page(house))


def press(house, label):
    """The button with this label, in the page as it is now."""
    address = re.search(rf'action="([^"]+)"[^>]*><button[^>]*aria-label="{label}"', page(house)).group(1)
    answer = house.browser.post(address.replace("&amp;", "&"), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue")


def test_rows_are_moved_up_down_and_to_the_top(three):
    assert order(three) == ["first", "second", "third"]
    press(three, "third up")
    assert order(three) == ["first", "third", "second"]
    press(three, "first down")
    assert order(three) == ["third", "first", "second"]
    press(three, "second to the top")
    assert order(three) == ["second", "third", "first"]
    html = page(three)
    assert 'aria-label="second up"' not in html and 'aria-label="first down"' not in html


def test_a_job_moves_past_those_that_wait_for_as_many_devices(three):
    large = three.submit(name="large", devices=2)
    assert f'aria-label="{large["name"]} up"' not in page(three)
    assert "needs 2 devices; no worker serves x2" in page(three)


def test_a_priority_is_set(three):
    answer = three.browser.post("/queue/3/priority", data={"priority": "7"}, follow_redirects=False)
    assert answer.status_code == 303
    assert order(three) == ["third", "first", "second"] and 'value="7"' in page(three)
    assert three.browser.post("/queue/3/priority", data={"priority": "1001"}).status_code == 422
    assert three.read.get("/runs/3").json()["stages"][0]["status"] == "queued"


def test_a_queue_is_paused_with_a_reason_and_resumed(three):
    three.browser.post("/queue/pause", data={"queue": "all", "reason": " maintenance <b>"})
    html = page(three)
    assert re.search(r"The queue is paused by [^<]+ since \d\d:\d\d UTC: maintenance &lt;b&gt;\.", html)
    assert "is paused by" in three.browser.get("/?part=queue").text
    assert three.read.get("/queue/paused").json()[0]["reason"] == "maintenance <b>"
    three.browser.post("/queue/resume?queue=all")
    assert "is paused by" not in page(three)
    three.claim()


def test_the_api_pauses_resumes_and_says_what_is_paused(three):
    paused = three.launch.post("/queue/pause", {"queue": "x1", "reason": "maintenance"}).json()
    assert [(each["queue"], each["reason"], each["actor"]) for each in paused] == [("x1", "maintenance", "token:test-launch")]
    assert three.read.get("/queue").json()[0]["waiting_because"].startswith("queue x1 is paused by token:test-launch since ")
    assert three.launch.post("/queue/resume", {"queue": "x1"}).json() == []


def test_the_api_reorders(three):
    def ids(**body):
        answer = three.launch.post("/queue/reorder", body)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()]

    assert ids(job_id=3) == [3, 1, 2]
    assert ids(job_id=3, after=2) == [1, 2, 3]
    assert ids(job_id=2, before=1) == [2, 1, 3]
    assert ids(job_id=3, priority=1) == [3, 2, 1]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("reorder", {"job_id": 9}, 404),
        ("reorder", {"job_id": 1, "before": 9}, 409),
        ("reorder", {"job_id": 1, "before": 2, "after": 3}, 422),
        ("reorder", {"job_id": 1, "before": 2, "priority": 3}, 422),
        ("reorder", {"job_id": 1, "rank": 3}, 422),
        ("reorder", {"job_id": 2**70}, 422),
        ("pause", {"queue": "x0"}, 422),
        ("pause", {"queue": "everything"}, 422),
        ("pause", {"reason": "nul\0"}, 422),
        ("resume", {"queues": "x1"}, 422),
    ],
)
def test_what_cannot_be_done_to_a_queue_is_refused_with_its_reason(three, path, body, status):
    answer = three.launch.post(f"/queue/{path}", body)
    assert answer.status_code == status and answer.json()["detail"]
    assert [each["id"] for each in three.read.get("/queue").json()] == [1, 2, 3]


def test_a_job_that_was_taken_while_the_page_was_open_is_not_moved(three):
    three.claim()
    answer = three.browser.post("/queue/1/reorder?after=3")
    assert answer.status_code == 409 and "Job 1 is starting; only what waits can be moved." in answer.text


def test_a_token_that_may_only_read_moves_and_pauses_nothing(three):
    assert three.read.post("/queue/pause", {}).status_code == 403
    assert three.read.post("/queue/reorder", {"job_id": 3}).status_code == 403


def test_an_empty_queue_says_so_and_can_be_paused(house):
    assert "Nothing waits." in page(house) and 'action="/queue/pause"' in page(house)


def test_a_move_is_in_the_runs_timeline_with_who_made_it(three):
    press(three, "third to the top")
    timeline = three.browser.get("/runs/3?part=timeline").text
    assert "moved in the queue" in timeline


def occupied(house, **facts):
    gpu = {"index": "0", "name": "H100", "memory_used": 60 << 30, "memory_total": 80 << 30, "use": 94, "processes": []} | facts
    with house.writing.begin() as session:
        worker = session.exec(select(Worker)).one()
        worker.gpus, worker.gpus_at = [gpu], db.now(session)
        session.add(worker)
    return re.sub(r"\s+", " ", house.browser.get("/?part=workers").text)


def test_a_gpu_shows_what_the_rows_say_beside_what_the_driver_says(three):
    three.claim()
    mine = {"pid": 12, "name": "python", "memory": 50 << 30, "is_ours": True}
    html = occupied(
        three, processes=[mine, mine | {"pid": 4711, "name": "<x>", "is_ours": False}, mine | {"pid": 5, "is_ours": None, "memory": None}]
    )
    assert 'In the rows: <a class="opens" href="/runs/1">first</a> <span class="muted">resampler</span>' in html
    assert "60.0 GB of 80.0 GB, use 94 %" in html
    assert 'python <span class="muted">pid 12, 50.0 GB</span> of this house' in html
    assert re.search(r'class="warn-text">&lt;x&gt; <span class="muted">pid 4711, 50.0 GB</span> is no run of this house', html)
    assert "pid 5</span> whose, is not known" in html
    assert three.read.get("/workers").json()[0]["gpus"][0]["processes"][0] == mine


def test_a_gpu_of_which_the_driver_knows_little_is_shown_as_far_as_it_is_known(three):
    three.claim()
    html = occupied(three, memory_used=None, memory_total=None, use=None)
    assert "– of –, use –" in html and "No process computes on it." in html


def test_a_worker_that_takes_nothing_says_why(three):
    three.claim().end("stopped")
    with three.writing.begin() as session:
        session.exec(select(Worker)).one().held_back = "GPU 0 is occupied by python (pid 7), which is no run of this house"
    html = re.sub(r"\s+", " ", three.browser.get("/?part=workers").text)
    assert "takes nothing" in html and "x1: GPU 0 is occupied by python (pid 7), which is no run of this house." in html
    sidebar = three.browser.get("/house").text
    assert "takes nothing" in sidebar and "GPU 0 is occupied by python" in sidebar and "idle" not in sidebar


def test_browsers_listen_to_every_kind_of_event_that_the_queue_tells(three):
    press(three, "third up")
    three.browser.post("/queue/pause", data={"queue": "x1"})
    listened = re.search(r"const KINDS = \[(.*?)\]", (STATIC / "js" / "live-source.js").read_text()).group(1)
    with three.reading() as session:
        told = {event.kind for event in session.exec(select(Event))}
    assert told == {"job", "queue"} <= set(re.findall(r'"(\w+)"', listened))
