"""Browsers that are signed in. A link or a token is handed in once and becomes a cookie; the database keeps only hashes of all three.

What a session may do follows from what opened it. Cookies and redirects are `app/access/pages.py`'s business.
"""

import secrets
from datetime import timedelta
from urllib.parse import urlencode

from sqlmodel import Session, col, delete, select, update

from app import db
from app.access import service as tokens
from app.access.scope import Scope
from app.access.service import digest
from app.errors import Unauthorized
from app.i18n import _
from app.models import BrowserSession, SignInLink, Token
from app.settings import Settings

URL_FILE = "server.url"
"""In the home of an installation: where its server was last started, which its other commands cannot know."""
LINK_LIVES = timedelta(minutes=10)
SESSION_LIVES = timedelta(days=30)


def create_link(session: Session) -> str:
    """The key of a new sign-in link, which nobody can read again. Whoever stands at the server's machine may do everything."""
    now, key = db.now(session), secrets.token_urlsafe(32)
    session.add(SignInLink(hash=digest(key), created_at=now, expires_at=now + LINK_LIVES))
    return key


def base_url(settings: Settings) -> str:
    """Where a browser on this machine finds the server. One that listens everywhere is reached under its first allowed name."""
    host = settings.host if settings.host not in ("0.0.0.0", "::") else settings.allowed_hosts[0]
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{settings.port}"


def link_url(settings: Settings, key: str, next: str = "/") -> str:
    """Where the key is handed in, and the page it leads to: at the server that was last started in this home."""
    started = settings.home / URL_FILE
    base = started.read_text() if started.exists() else base_url(settings)
    return f"{base}/sign-in?{urlencode({'key': key} | ({'next': next} if next != '/' else {}))}"


def open_session(session: Session, key: str) -> str:
    """The secret of a new browser session, for the key of a link that is used up by this, or for a living token. Raises Unauthorized."""
    now = db.now(session)
    token = tokens.find(session, key)[0] if key.startswith(tokens.PREFIX) else None
    if token is None:
        _use_up(session, key)
    session.exec(delete(BrowserSession).where(col(BrowserSession.expires_at) < now))
    session.exec(delete(SignInLink).where(col(SignInLink.expires_at) < now))
    secret = secrets.token_urlsafe(32)
    session.add(BrowserSession(hash=digest(secret), token_id=token.id if token else None, created_at=now, expires_at=now + SESSION_LIVES))
    return secret


def _use_up(session: Session, key: str) -> None:
    """Of two requests with one key, one gets in."""
    now = db.now(session)
    usable = (col(SignInLink.hash) == digest(key), col(SignInLink.used_at).is_(None), col(SignInLink.expires_at) > now)
    if session.exec(update(SignInLink).where(*usable).values(used_at=now)).rowcount != 1:
        raise Unauthorized(_("This key is unknown, used or older than ten minutes. `panollava link` prints a link with a new one."))


def find(session: Session, secret: str) -> tuple[str, Scope]:
    """Name and scope of a living session. Raises Unauthorized for one that is unknown, over, or whose token is."""
    now = db.now(session)
    alive = (BrowserSession.hash == digest(secret), col(BrowserSession.expires_at) > now)
    found = session.exec(select(BrowserSession, Token).outerjoin(Token, col(Token.id) == BrowserSession.token_id).where(*alive)).first()
    if found is None:
        raise Unauthorized(_("This browser is not signed in, or no longer."))
    token = found[1]
    if token is None:
        return "browser", Scope.admin
    if not tokens.is_alive(token, now):
        raise Unauthorized(_("The token that this browser was signed in with is expired or revoked."))
    return f"token:{token.name}", tokens.scope_of(token)


def close(session: Session, secret: str) -> None:
    """Sign this browser out; signing out twice changes nothing."""
    session.exec(delete(BrowserSession).where(col(BrowserSession.hash) == digest(secret)))
