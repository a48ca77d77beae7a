"""A store or a share that hangs is waited for by whoever asks it, and in no transaction that writes: nobody else waits with him."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from app import artifacts
from app.jobs import service as jobs
from app.models import Checkpoint
from tests.worker.conftest import NOBODY
from tests.worker.hosts import Host, Played, row
from worker import follow
from worker.follow import Follower, hear, take_in

pytestmark = pytest.mark.store


@pytest.fixture
def best(house):
    """Of a run that has succeeded."""
    house.submit("steady")
    Host(house, "one").work().take()
    return row(house, Checkpoint, kind="best")


@pytest.fixture
def writes():
    """Says whether this thread is in a transaction that writes."""
    at_it = threading.local()

    def begin(connection) -> None:
        at_it.writes = not connection.get_execution_options().get("postgresql_readonly", False)

    def end(_connection) -> None:
        at_it.writes = False

    heard = {"begin": begin, "commit": end, "rollback": end}
    for name, function in heard.items():
        event.listen(Engine, name, function)
    yield lambda: getattr(at_it, "writes", False)
    for name, function in heard.items():
        event.remove(Engine, name, function)


@pytest.fixture
def asked(monkeypatch, writes):
    """Whether this thread writes whenever the store is asked."""
    asked, store = [], artifacts._store

    def asking():
        asked.append(writes())
        return store()

    monkeypatch.setattr(artifacts, "_store", asking)
    return asked


@pytest.fixture
def touched(monkeypatch, writes):
    """Whether this thread writes whenever the trainer's two files are read or its directory is written to, by whom that is done."""
    touched = []

    def seen(name, function):
        def call(*args, **more):
            touched.append((name, writes()))
            return function(*args, **more)

        return call

    for name in ("whole_lines", "some_bytes"):
        monkeypatch.setattr(follow, name, seen(name, getattr(follow, name)))
    monkeypatch.setattr(Path, "touch", seen("touch", Path.touch))
    return touched


@pytest.mark.parametrize("recovered", [False, True])
def test_what_a_trainer_wrote_is_read_without_waiting_for_its_disk_while_writing(house, touched, recovered):
    attempt = Played(Host(house, "one"))
    attempt.save("step=000005.ckpt", "step", 5)
    touched.clear()
    house.do(jobs.request_save, attempt.job_id, "a person")
    attempt.fake.one_step(6, {})
    if recovered:
        house.bury("one")
        house.work("another", scratch=attempt.host.scratch).recovery.others()
    else:
        assert Follower(house.sessions, attempt.claimed, NOBODY).round()
        assert "touch" in {name for name, _ in touched}
    assert len(house.stored_points(attempt.job_id)) == 1
    assert {"whole_lines", "some_bytes"} <= {name for name, _ in touched} and True not in {writing for _, writing in touched}


def test_what_two_have_read_is_stored_once_and_whoever_is_late_goes_on_behind_it(house):
    attempt = Played(Host(house, "one"))
    attempt.fake.one_step(1, {})
    first = hear(house.sessions, attempt.claimed)
    attempt.fake.one_step(2, {})
    for said in (first, hear(house.sessions, attempt.claimed), first):
        with house.sessions.writing.begin() as session:
            take_in(session, attempt.claimed, said)
    assert [step for step, *_ in house.stored_points(attempt.job_id)] == [1]
    with house.sessions.writing.begin() as session:
        take_in(session, attempt.claimed, hear(house.sessions, attempt.claimed))
    assert [step for step, *_ in house.stored_points(attempt.job_id)] == [1, 2]


def test_it_is_seen_when_the_store_is_asked_in_a_transaction_that_writes(house, best, asked):
    with house.sessions.writing.begin() as session:
        session.connection()
        artifacts.read_note(best.path)
    artifacts.read_note(best.path)
    assert asked == [True, False]


REQUESTS = {
    "run": lambda house, best: ("/api/v1/runs", {"config": config(house, "finetune") | {"init_from": best.path}}),
    "run_from_the_start": lambda house, best: ("/api/v1/runs", {"config": config(house, "resampler"), "request_key": "once"}),
    "clone": lambda house, best: (f"/api/v1/runs/{best.run_id}/clone", {"config": {"init_from": best.path}}),
    "fork": lambda house, best: (f"/api/v1/runs/{best.run_id}/fork", {"checkpoint_id": best.id, "request_key": "once"}),
    "fork_of_a_stage": lambda house, best: (f"/api/v1/runs/{best.run_id}/stages/resampler/fork", {}),
    "evaluation": lambda house, best: ("/api/v1/evaluations", {"checkpoint_id": best.id, "config": {"csv": str(house.settings.home / "train.csv")}}),
}


def config(house, stage: str) -> dict:
    table = str(house.settings.home / "train.csv")
    return {"stage": [stage], "csv_train": table, "csv_val": table}


@pytest.mark.parametrize("what", REQUESTS)
def test_what_begins_at_a_checkpoint_of_the_store_is_queued_without_waiting_for_it_while_writing(house, client, best, asked, what):
    url, body = REQUESTS[what](house, best)
    answer = client.post(url, json=body)
    assert answer.status_code == 201, answer.text
    assert True not in asked
    assert bool(asked) == (what != "run_from_the_start")


def test_an_evaluation_asked_for_by_its_page_is_queued_without_waiting_for_the_store_while_writing(house, client, best, asked):
    form = {"checkpoint_id": str(best.id), "csv": str(house.settings.home / "train.csv"), "request_key": "once"}
    page = client.post("/evals/new", data=form, headers={"Origin": "http://localhost"}, follow_redirects=False)
    assert page.status_code == 303, page.text
    assert asked and True not in asked


def test_an_export_that_was_made_is_asked_for_again_without_waiting_for_the_store_while_writing(house, client, best, asked):
    url = f"/api/v1/checkpoints/{best.id}/export"
    assert client.post(url).status_code == 202
    Host(house, "one").work().take()
    asked.clear()
    again = client.post(url)
    assert (again.status_code, again.json()["status"], again.json()["is_gone"]) == (202, "succeeded", False)
    assert asked and True not in asked
    artifacts.delete(artifacts.join(again.json()["directory"], "config.json"))
    asked.clear()
    assert client.post(url).json()["status"] == "queued"
    assert asked and True not in asked


def test_two_databases_over_one_store_name_their_runs_apart_without_asking_it(s3, asked):
    name = artifacts.join(s3, "run-1")
    assert artifacts.free(name) != artifacts.free(name) and not asked
