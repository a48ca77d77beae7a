"""API tokens: shown once, kept as a hash, limited by scope, expiry and revocation. What a route needs is said in `permissions.py`."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, or_, select, update

from app import db
from app.access.scope import Scope
from app.errors import NotFound, Unauthorized
from app.i18n import _
from app.models import Token

PREFIX = "pl_"
SEEN_AT_MOST_EVERY = timedelta(minutes=1)


def create(session: Session, name: str, scope: Scope, expires_at: datetime | None = None) -> tuple[Token, str]:
    """A new token and its secret, which nobody can read again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token(name=name, hash=digest(secret), scopes=[scope], created_at=db.now(session), expires_at=expires_at)
    session.add(token)
    session.flush()
    return token, secret


def page(session: Session, cursor: int | None, limit: int) -> Sequence[Token]:
    """Tokens older than number `cursor`, newest first."""
    query = select(Token).order_by(col(Token.id).desc()).limit(limit)
    return session.exec(query if cursor is None else query.where(col(Token.id) < cursor)).all()


def revoke(session: Session, token_id: int) -> Token:
    """From now on the token opens nothing; revoking it again changes nothing. Raises NotFound."""
    token = session.get(Token, token_id)
    if token is None:
        raise NotFound(_("There is no token {id}.").format(id=token_id))
    token.revoked_at = token.revoked_at or db.now(session)
    session.add(token)
    return token


def find(session: Session, secret: str) -> tuple[Token, bool]:
    """The living token of a secret, and whether it is time to `mark_used`. Raises Unauthorized, the same for unknown, expired and revoked."""
    token = session.exec(select(Token).where(Token.hash == digest(secret))).first()
    now = db.now(session)
    # The lookup compares hashes of 256 random bits, so its timing tells nothing about the secret; nor does this comparison.
    if token is None or not hmac.compare_digest(token.hash, digest(secret)) or not is_alive(token, now):
        raise Unauthorized(_("This token is unknown, expired or revoked."))
    return token, token.last_used_at is None or now - token.last_used_at >= SEEN_AT_MOST_EVERY


def mark_used(session: Session, token: Token) -> None:
    """At most one write a minute, however busy the token is: of two requests at once, one writes."""
    now = db.now(session)
    stale = or_(col(Token.last_used_at).is_(None), col(Token.last_used_at) <= now - SEEN_AT_MOST_EVERY)
    session.exec(update(Token).where(col(Token.id) == token.id, stale).values(last_used_at=now))


def scope_of(token: Token) -> Scope:
    """The widest scope a token has."""
    return max((Scope(name) for name in token.scopes), key=list(Scope).index)


def is_alive(token: Token, now: datetime) -> bool:
    """Neither revoked nor expired."""
    return token.revoked_at is None and (token.expires_at is None or now < token.expires_at)


def digest(secret: str) -> str:
    """What the database keeps of a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
