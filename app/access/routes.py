"""Tokens over HTTP, for admins."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.access import service as access
from app.access.permissions import ADMIN
from app.access.scope import Scope
from app.deps import Cursor, Limit, Page, Row, SessionDep

router = APIRouter(prefix="/tokens", tags=["access"], dependencies=[ADMIN])


class TokenRequest(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="What histories call it.")
    scope: Scope = Scope.read
    expires_at: AwareDatetime | None = None


class TokenOut(Row):
    """A token without its secret, which nobody can read again."""

    id: int
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class NewToken(TokenOut):
    """The only answer that ever holds a secret."""

    secret: str


@router.get("")
def list_tokens(session: SessionDep, cursor: Cursor = None, limit: Limit = 50) -> Page[TokenOut]:
    """Newest first, revoked ones included."""
    return Page[TokenOut].of(access.page(session, cursor, limit), limit)


@router.post("", status_code=201)
def create_token(body: TokenRequest, session: SessionDep) -> NewToken:
    """Make a token. Its secret is in this answer and nowhere else."""
    token, secret = access.create(session, body.name, body.scope, body.expires_at)
    return NewToken.model_validate(token.model_dump() | {"secret": secret})


@router.delete("/{token_id}", status_code=204)
def revoke_token(token_id: int, session: SessionDep) -> None:
    """From now on it opens nothing; histories keep its name."""
    access.revoke(session, token_id)
