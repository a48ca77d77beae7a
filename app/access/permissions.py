"""What a request may do. Every route declares one `Permit`; a test walks the routes and fails on one that declares none."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import InternalError

from app import db
from app.access import cookies, sessions
from app.access import service as access
from app.access.scope import Scope
from app.deps import State, StateDep
from app.errors import Forbidden, Unauthorized
from app.i18n import _
from app.models import Token

_bearer = HTTPBearer(auto_error=False, description="A token from `panollava token create`.")


@dataclass(frozen=True)
class Actor:
    """Who asks. `name` is what histories show."""

    name: str
    scope: Scope


StillAllowed = Callable[[], Awaitable[bool]]
SAFE = ("GET", "HEAD", "OPTIONS")


def identify(request: Request, state: StateDep, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Actor:
    """In sessions of its own, done before the route's begins: marking a token used must not make a reader wait for a writer.

    Raises Unauthorized without a living token or browser session, Forbidden for a form that another site sent.
    """
    if bearer is None:
        return _browser(request, state)
    with state.reading() as session:
        token, stale = access.find(session, bearer.credentials)
    if stale and "writes" not in state.outages.now():
        _mark_used(state, token)
    return Actor(f"token:{token.name}", access.scope_of(token))


def _mark_used(state: State, token: Token) -> None:
    """A database that can only be read is no reason to show nothing of it."""
    try:
        with state.writing.begin() as session:
            access.mark_used(session, token)
    except InternalError as error:
        if not db.is_refused_write(error):
            raise


def _browser(request: Request, state: StateDep) -> Actor:
    if (secret := request.cookies.get(cookies.session(request))) is None:
        if "HX-Request" in request.headers:
            raise Unauthorized(_("This browser is signed out. Reload the page to sign in."))
        raise Unauthorized(_("This needs a token, sent as `Authorization: Bearer pl_...`; `panollava token create` makes one."))
    check_origin(request)
    with state.reading() as session:
        return Actor(*sessions.find(session, secret))


def still_allowed(request: Request, state: StateDep, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> StillAllowed:
    """For streams, which stay open: asks again whether whoever opened it is still somebody."""

    def ask() -> bool:
        try:
            identify(request, state, bearer)
        except Unauthorized:
            return False
        return True

    return lambda: asyncio.to_thread(ask)


def check_origin(request: Request) -> None:
    """A browser sends its cookies whoever wrote the form, and says who that was. Raises Forbidden unless it was a page of ours."""
    origin = request.headers.get("Origin")
    if request.method not in SAFE and (origin is None or urlsplit(origin).netloc != request.headers.get("Host")):
        raise Forbidden(_("This request comes from {origin}, not from a page of this server.").format(origin=origin or _("an unknown page")))


@dataclass(frozen=True)
class Permit:
    """A dependency that lets pass whoever has the scope. Raises Forbidden for a smaller one."""

    scope: Scope

    def __call__(self, actor: Annotated[Actor, Depends(identify)]) -> Actor:
        if not actor.scope.includes(self.scope):
            raise Forbidden(_("This needs a token of scope {needed}; this one has {has}.").format(needed=self.scope, has=actor.scope))
        return actor


READ, ADMIN = Depends(Permit(Scope.read)), Depends(Permit(Scope.admin))
Launcher = Annotated[Actor, Depends(Permit(Scope.launch))]
"""The first parameter of its route: what a request may do is asked before anything else about it."""
StillAllowedDep = Annotated[StillAllowed, Depends(still_allowed)]
