"""Of two requests at once one takes away what the other is about: that one is handled again, and never answered with a defect."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from psycopg.errors import DeadlockDetected
from sqlalchemy.exc import OperationalError

from app.access import service as access
from app.access.scope import Scope
from app.again import MOST
from app.checkpoints import retention
from app.jobs import order
from app.main import create_app
from app.runs import removal
from tests.app.test_lock_order import until_somebody_waits
from tests.app.test_retry_stage import trained

sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
DEADLOCK = OperationalError("UPDATE job", {}, DeadlockDetected())
REQUESTS = {
    "stop": ("POST", "/api/v1/runs/1/stop", None),
    "save": ("POST", "/api/v1/runs/1/save", None),
    "resume": ("POST", "/api/v1/runs/1/resume", None),
    "rename": ("PATCH", "/api/v1/runs/1", {"name": "better"}),
    "archive": ("POST", "/api/v1/runs/1/archive", None),
    "keep less": ("POST", "/api/v1/runs/1/retention", {"steps": 0}),
    "only keep a rule": ("POST", "/api/v1/runs/1/retention", {"steps": 1, "apply": False}),
    "move up": ("POST", "/api/v1/queue/reorder", {"job_id": 1}),
    "prefer": ("POST", "/api/v1/queue/reorder", {"job_id": 1, "priority": 5}),
    "pin": ("PATCH", "/api/v1/checkpoints/1", {"pinned": True}),
    "unpin": ("PATCH", "/api/v1/checkpoints/1", {"pinned": False}),
    "delete a checkpoint": ("DELETE", "/api/v1/checkpoints/1", None),
    "export": ("POST", "/api/v1/checkpoints/1/export", None),
    "fork": ("POST", "/api/v1/runs/1/fork", {"checkpoint_id": 1, "stages": ["finetune"]}),
    "delete": ("DELETE", "/api/v1/runs/1", None),
}


@pytest.fixture
def app(house):
    return create_app(house.settings.model_copy(update={"allowed_hosts": ["testserver"]}))


@pytest.fixture
def client(house, app):
    """Who may do everything, at an app on the house's database."""
    with house.writing.begin() as session:
        token = access.create(session, "test", Scope.admin)[1]
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_asked_of_a_run_that_is_being_deleted_finds_none(house, session, client, name):
    run = trained(house, session, "resampler")
    retention.keep(session, run, retention.Rule())
    session.commit()
    method, path, body = REQUESTS[name]
    with ThreadPoolExecutor(1) as pool:
        order.lock(session)
        removal.delete_run(session, run, house.settings.artifacts)
        asked = pool.submit(client.request, method, path, json=body)
        until_somebody_waits(house, asked)
        session.commit()
        answer = asked.result(60)
    assert answer.status_code == 404, answer.text
    assert "There is no " in answer.json()["detail"]


@pytest.fixture
def route(app):
    """A route that fails so many times; what it was asked each time."""

    def fail(times: int, error: Exception) -> list[str]:
        asked: list[str] = []

        def handle(body: dict[str, str]) -> str:
            asked.append(body["asked"])
            if len(asked) <= times:
                raise error
            return "done"

        app.add_api_route("/contested", handle, methods=["POST"])
        return asked

    return fail


@sqlite
def test_a_request_that_a_deadlock_has_ended_is_handled_again_with_its_body(route, client):
    asked = route(MOST - 1, DEADLOCK)
    assert client.post("/contested", json={"asked": "this"}).json() == "done"
    assert asked == ["this"] * MOST


@sqlite
def test_one_that_always_fails_is_answered_as_the_defect_it_is(route, client):
    asked = route(99, DEADLOCK)
    assert client.post("/contested", json={"asked": "this"}).status_code == 500
    assert len(asked) == MOST


@sqlite
def test_one_whose_database_is_away_is_not_held_up_by_another_try(route, client):
    asked = route(99, OperationalError("SELECT", {}, Exception("no route to host")))
    assert client.post("/contested", json={"asked": "this"}).status_code == 503
    assert len(asked) == 1
