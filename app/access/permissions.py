"""What a request may do. Every route declares one `Permit`; a test walks the routes and fails on one that declares none."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.access import service as access
from app.access.scope import Scope
from app.deps import StateDep
from app.errors import Forbidden, Unauthorized
from app.i18n import _

_bearer = HTTPBearer(auto_error=False, description="A token from `panollava token create`.")


@dataclass(frozen=True)
class Actor:
    """Who asks. `name` is what histories show."""

    name: str
    scope: Scope


def identify(state: StateDep, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Actor:
    """In sessions of its own, done before the route's begins: marking a token used must not make a reader wait for a writer.

    Raises Unauthorized without a living token.
    """
    if bearer is None:
        raise Unauthorized(_("This needs a token, sent as `Authorization: Bearer pl_...`; `panollava token create` makes one."))
    with state.reading() as session:
        token, stale = access.find(session, bearer.credentials)
    if stale:
        with state.writing.begin() as session:
            access.mark_used(session, token)
    return Actor(f"token:{token.name}", access.scope_of(token))


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
