"""Every route there is, without a token, with too small a one, and by what it declares. A new route is in these tests by being there."""

import re

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount

from app.access.permissions import Permit
from app.access.scope import Scope
from app.main import create_app
from app.settings import Settings

OPEN = {"/healthz", "/readyz", "/sign-in"}


def permits(dependant: Dependant) -> list[Permit]:
    own = [dependant.call] if isinstance(dependant.call, Permit) else []
    return own + [permit for each in dependant.dependencies for permit in permits(each)]


def routes():
    app = create_app(Settings(home="/nowhere", database_url="sqlite://"))
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, Mount) and route.name == "static":
            continue  # style sheets and scripts, the same for everybody
        assert isinstance(route, APIRoute), f"{context.path} is no route of ours, so nothing says who may use it"
        for method in route.methods:
            # What routers and the app add to a route is in the context, not in the route.
            yield method, context.path, [permit.scope for permit in permits(context.dependant)]


ROUTES = list(routes())
CLOSED = [route for route in ROUTES if route[1] not in OPEN]


def test_there_are_routes():
    assert len(ROUTES) > 25


@pytest.mark.parametrize(("method", "path", "scopes"), CLOSED)
def test_a_route_declares_its_permission_and_one_that_changes_things_more_than_reading(method, path, scopes):
    assert scopes, f"{method} {path} declares no Permit"
    if method != "GET" and path != "/sign-out":  # that changes only who asks
        assert max(scopes, key=list(Scope).index) in (Scope.launch, Scope.admin)


def test_no_route_answers_without_a_token_but_health_checks_and_sign_in(quiet_house):
    answers = {(method, path): quiet_house.client.request(method, filled(path)) for method, path, _scopes in ROUTES}
    assert {path for (_method, path), answer in answers.items() if answer.status_code != 401} == OPEN
    refused = answers["GET", "/api/v1/runs"]
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["detail"].startswith("This needs a token")


def test_a_route_refuses_a_token_of_too_small_a_scope_before_it_looks_at_anything_else(quiet_house):
    tokens = {Scope.launch: quiet_house.read, Scope.admin: quiet_house.launch}
    for method, path, scopes in CLOSED:
        needed = max(scopes, key=list(Scope).index)
        if needed in tokens:
            answer = quiet_house.client.request(method, filled(path), json={}, headers={"Authorization": f"Bearer {tokens[needed].token}"})
            assert answer.status_code == 403, (method, path)
            assert f"needs a token of scope {needed}" in answer.json()["detail"]


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer pl_wrong", "Basic pl_wrong", "Bearer pl_wrong\u00e9".encode()])
def test_a_header_that_holds_no_token_of_ours_is_refused(quiet_house, header):
    assert quiet_house.client.get("/api/v1/runs", headers={"Authorization": header}).status_code == 401


def test_a_host_that_is_not_allowed_is_refused(quiet_house):
    assert quiet_house.client.get("/healthz", headers={"Host": "elsewhere.example"}).status_code == 400


def test_the_health_checks_tell_whether_the_database_answers(quiet_house):
    assert quiet_house.client.get("/healthz").json() == {"status": "ok"}
    fine = {"status": "ok", "since": None}
    assert quiet_house.client.get("/readyz").json() == {"status": "ok", "parts": {"database": fine, "writes": fine}}


def filled(path: str) -> str:
    return re.sub(r"{\w+(:\w+)?}", "1", path)
