"""The first page: who works, what waits and why, what is at work, what has ended, what wants attention."""

import re
from datetime import timedelta

import pytest
from sqlmodel import update

from app import db
from app.models import Job, JobStatus, Worker
from app.overview import service as overview
from panollava.events import Metric, Progress, StageEvent
from tests.web.test_manage_run import GATED, train


def piece(house, name):
    answer = house.browser.get(f"/?part={name}")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.text)


def silence(house, seconds):
    """Nobody has been heard for so long."""
    with house.writing.begin() as session:
        then = db.now(session) - timedelta(seconds=seconds)
        session.exec(update(Worker).values(heartbeat_at=then))
        session.exec(update(Job).where(Job.heartbeat_at != None).values(heartbeat_at=then))  # noqa: E711


def test_a_house_that_has_run_nothing_says_what_to_do(house):
    html = house.browser.get("/").text
    assert "No runs yet." in html and "Launch a run" in html and "make demo" in html
    assert "No worker is running. Start one:" in html and "panollava worker" in html
    assert 'id="recent"' not in html


def test_the_page_holds_every_piece_and_each_is_asked_for_alone(house):
    house.submit()
    page = re.sub(r"\s+", " ", house.browser.get("/").text)
    for name in ("workers", "queue", "running", "attention", "recent"):
        alone = piece(house, name)
        assert f'id="{name}"' in alone and "<html" not in alone
        assert alone.strip() in page
    assert house.browser.get("/?part=odd").status_code == 422


def test_workers_are_there_with_their_devices_and_what_they_are_at(house):
    house.submit(name="mine")
    house.claim()
    html = piece(house, "workers")
    assert '<b>x1</b> <span class="muted">here</span>' in html
    assert re.search(r'href="/runs/1">mine</a> <span class="muted">resampler</span>', html)
    assert "silent" not in html and "No worker" not in html


def test_a_silent_worker_is_called_silent_and_the_page_says_that_none_is_running(house):
    house.submit()
    house.claim()
    silence(house, 31 * 60)
    html = piece(house, "workers")
    assert "silent" in html and "31 min ago" in html
    assert "No worker is running. Start one: <code>panollava worker</code>" in html


def test_a_worker_that_said_goodbye_is_not_listed(house):
    house.submit()
    house.claim()
    with house.writing.begin() as session:
        session.exec(update(Worker).values(stopped_at=db.now(session)))
    assert "<b>x1</b>" not in piece(house, "workers")


def test_the_queue_has_its_order_and_the_reason_each_waits(house):
    house.submit(name="first")
    house.submit(name="second")
    html = piece(house, "queue")
    assert re.findall(r">(first|second)</a>", html) == ["first", "second"]
    assert "needs 1 device; no worker serves x1" in html
    house.claim()
    html = piece(house, "queue")
    assert "the only x1 worker runs run 1" in html and ">first<" not in html


def test_a_long_queue_is_cut_and_says_how_long_it_is(house, monkeypatch):
    monkeypatch.setattr(overview, "QUEUE_ROWS", 1)
    for _ in range(3):
        house.submit()
    assert "and 2 more" in piece(house, "queue")


def test_what_is_at_work_shows_how_far_it_is_how_long_still_and_its_last_loss(house):
    house.submit(name="mine", stage="vision,resampler")
    work = house.claim()
    work.say(StageEvent(name="vision", status="started"))
    assert "not begun" in piece(house, "running")
    work.say(Progress(done=1, total=4, unit="steps", eta_seconds=120.0), Metric(step=1, epoch=0.1, values={"train_loss": 1.8421, "lr": 1.0}))
    html = piece(house, "running")
    assert "25 %, 2 min left" in html and "1.842" in html and "Running" in html
    assert 'aria-label="Vision running 25 %, Resampler waiting"' in html
    silence(house, 31)
    html = piece(house, "running")
    assert "No heartbeat" in html and "Running</span>" not in html and "left" not in html


def test_a_run_that_has_ended_is_recent_with_its_outcome_and_by_whom(house):
    house.submit(name="mine")
    house.claim().end(JobStatus.stopped)
    html = piece(house, "recent")
    assert "mine" in html and "Stopped" in html and "token:test-launch" in html


def test_what_has_failed_wants_attention_until_it_is_resumed(house):
    run = house.submit(name="mine")
    house.claim().end(JobStatus.failed, detail="loss is <NaN>\nTraceback")
    html = piece(house, "attention")
    assert "mine" in html and "loss is &lt;NaN&gt;" in html and "Traceback" not in html
    assert f'<form method="post" action="/runs/{run["id"]}/resume">' in html
    answer = house.browser.post(f"/runs/{run['id']}/resume", follow_redirects=False)
    assert answer.status_code == 303
    assert "mine" not in piece(house, "attention")
    assert house.read.get(f"/runs/{run['id']}").json()["status"] == "queued"


def test_what_is_silent_wants_attention_and_cannot_be_resumed(house):
    house.submit(name="mine")
    house.claim()
    assert "mine" not in piece(house, "attention")
    silence(house, 31)
    html = piece(house, "attention")
    assert "No heartbeat" in html and "Nobody has been heard to work on it." in html and "resume" not in html


def test_an_old_failure_is_history(house):
    house.submit(name="mine")
    house.claim().end(JobStatus.failed)
    with house.writing.begin() as session:
        session.exec(update(Job).values(finished_at=db.now(session) - overview.ATTENTION_LASTS - timedelta(minutes=1)))
    assert "mine" not in piece(house, "attention")


def test_an_evaluation_that_failed_wants_attention_too(house):
    checkpoint = house.checkpoint("best.ckpt")
    asked = house.launch.post("/evaluations", {"name": "mine", "config": {"checkpoint": str(checkpoint), "csv": house.table}})
    assert asked.status_code == 201, asked.text
    assert "evaluation" in piece(house, "queue")
    house.claim().end(JobStatus.failed, detail="no such image")
    html = piece(house, "attention")
    assert "mine" in html and "no such image" in html and f'href="/evals/{asked.json()["id"]}"' in html and "/resume" not in html


@pytest.mark.parametrize("path", ["/", "/house"])
def test_pages_are_for_those_who_are_signed_in(house, path):
    assert house.client.get(path).status_code == 401
    assert house.browser.get(path).status_code == 200


def test_a_run_that_reads_its_images_has_done_nothing_of_its_steps_yet(house):
    house.submit(name="reading")
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"), Progress(done=6, total=8, unit="images"))
    page = house.browser.get("/").text
    assert "6 of 8 images read" in page and "75 %" not in page


def test_a_run_at_a_closed_gate_waits_for_a_person_and_the_overview_says_so_with_the_button_that_opens_it(house):
    run = house.submit(name="mine", stage="resampler,finetune", stages={"finetune": {"gate_below": 2.1}})
    assert "mine" not in piece(house, "attention")
    train(house, 2.34)
    html = piece(house, "attention")
    assert "Gated" in html and f"waits for a person: {GATED}" in html
    url = f"/runs/{run['id']}/stages/finetune/open-gate"
    assert f'action="{url}"' in html and "the last" not in html, "a gate does not grow old"
    assert house.browser.post(url, follow_redirects=False).status_code == 303
    assert "mine" not in piece(house, "attention")
