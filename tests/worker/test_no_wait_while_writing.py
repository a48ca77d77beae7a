"""A store that hangs is waited for by whoever asks it, and in no transaction that writes: nobody else waits with him."""

import threading

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from app import artifacts
from app.access import service as access
from app.access.scope import Scope
from app.main import create_app
from app.models import Checkpoint
from tests.worker.conftest import built
from tests.worker.hosts import Host, row


@pytest.fixture
def house(tmp_path, databases, s3):
    with built(tmp_path, databases, artifacts=s3) as house:
        yield house


@pytest.fixture
def best(house):
    """Of a run that has succeeded."""
    house.submit("steady")
    Host(house, "one").work().take()
    return row(house, Checkpoint, kind="best")


@pytest.fixture
def client(house):
    with house.sessions.writing.begin() as session:
        token = access.create(session, "test", Scope.launch)[1]
    with TestClient(create_app(house.settings), base_url="http://localhost", headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


@pytest.fixture
def asked(monkeypatch):
    """Whether this thread writes whenever the store is asked."""
    at_it, asked, store = threading.local(), [], artifacts._store

    def begin(connection) -> None:
        at_it.writes = not connection.get_execution_options().get("postgresql_readonly", False)

    def end(_connection) -> None:
        at_it.writes = False

    def asking():
        asked.append(getattr(at_it, "writes", False))
        return store()

    monkeypatch.setattr(artifacts, "_store", asking)
    heard = {"begin": begin, "commit": end, "rollback": end}
    for name, function in heard.items():
        event.listen(Engine, name, function)
    yield asked
    for name, function in heard.items():
        event.remove(Engine, name, function)


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
