"""What all pages share: the templates, what the frame around a page shows, and the headers that keep a page to itself.

A page's own route and data are in the `pages.py` of its domain.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlmodel import Session
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import static
from app import db, doorbell, formats
from app.access.permissions import Actor, identify
from app.deps import SessionDep
from app.events import service as events
from app.i18n import _, ngettext
from app.jobs import progress, queue
from panollava.stages import Stage

STATIC = Path(static.__file__ or "").parent
THEMES = ("light", "dark")
NAVIGATION = (
    ("/", "layout-dashboard", _("Overview")),
    ("/runs", "list", _("Runs")),
    ("/runs/new", "rocket", _("Launch")),
    ("/checkpoints", "box", _("Checkpoints")),
    ("/evals", "scale", _("Evals")),
    ("/datasets", "database", _("Datasets")),
)
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # under no-referrer the origin of our own forms would be "null"
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FOR_EVER = "public, max-age=31536000, immutable"


@cache
def static_version() -> str:
    """Part of every static address, so that a browser may keep what it has until one of the files changes."""
    files = sorted(path for path in STATIC.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return hashlib.sha256(b"".join(str(path.relative_to(STATIC)).encode() + path.read_bytes() for path in files)).hexdigest()[:12]


def static_url(path: str) -> str:
    return f"/static/{static_version()}/{path}"


@cache
def environment() -> Environment:
    built = Environment(loader=PackageLoader("templates", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    built.globals.update(
        _=_, ngettext=ngettext, static=static_url, navigation=NAVIGATION, stages=list(Stage), sweep_seconds=round(doorbell.SWEEP_SECONDS)
    )
    built.filters["share"] = progress.share
    for filter_ in (formats.size, formats.number, formats.duration, formats.ago, formats.moment, formats.count):
        built.filters[filter_.__name__] = filter_
    return built


@dataclass(frozen=True)
class Frame:
    """A page's surroundings: who looks, at what moment, and what the side bar says of the house."""

    request: Request
    session: Session
    actor: Actor
    now: datetime
    last_event: int
    """Everything up to this event is in the page; the live stream goes on after it."""

    def render(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A whole page, or a piece of one (`_name.html`), with `frame` and `now` beside the given context."""
        return html(self.request, template, status, frame=self, now=self.now, **context)

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Those that have not said goodbye."""
        return [worker for worker in queue.workers(self.session) if worker["stopped_at"] is None]

    @property
    def waiting(self) -> int:
        """Queued jobs."""
        return queue.length(self.session)


def frame(request: Request, session: SessionDep, actor: Annotated[Actor, Depends(identify)]) -> Frame:
    last_event = events.latest(session)
    return Frame(request, session, actor, db.now(session), last_event)


FrameDep = Annotated[Frame, Depends(frame)]


def html(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    theme = request.cookies.get("theme")
    away = request.app.state.panollava.outages.now()
    text = environment().get_template(template).render(path=request.url.path, theme=theme if theme in THEMES else None, away=away, **context)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def redirect(request: Request, url: str) -> Response:
    """After a form: to the page that shows what came of it. A page that sent the form by htmx and is that page stays as it is."""
    if "HX-Request" in request.headers:
        here = urlsplit(request.headers.get("HX-Current-URL", "")).path
        return Response(status_code=204, headers={} if here == urlsplit(url).path else {"HX-Redirect": url})
    return RedirectResponse(url, 303)


def is_page(request: Request) -> bool:
    """Whether a person with a browser asks, not a script."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


class SecurityHeaders:
    """On every answer of ours; static files besides may be kept for ever, since their address changes when they do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/static/") and message["status"] == 200:
                    headers["Cache-Control"] = FOR_EVER
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
