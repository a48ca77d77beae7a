"""Signing in and out in a browser."""

from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.access import sessions
from app.access.permissions import COOKIE, READ, check_origin
from app.deps import SessionDep
from app.errors import Unauthorized
from app.pages import html

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def show_sign_in(request: Request, session: SessionDep, key: str = "", next: str = "/") -> Response:
    """The key of a link stands in the form. A click sends it, or the page's script: whoever only previews a link does not use it up."""
    with suppress(Unauthorized):
        sessions.find(session, request.cookies.get(COOKIE, ""))
        return RedirectResponse(_local(next), 303)
    return html(request, "sign_in.html", key=key, next=_local(next), error=None)


@router.post("/sign-in")
def sign_in(request: Request, session: SessionDep, key: Annotated[str, Form()], next: Annotated[str, Form()] = "/") -> Response:
    check_origin(request)
    try:
        secret = sessions.open_session(session, key.strip())
    except Unauthorized as error:
        return html(request, "sign_in.html", error.status, key="", next=_local(next), error=str(error))
    answer = RedirectResponse(_local(next), 303)
    answer.set_cookie(
        COOKIE, secret, max_age=int(sessions.SESSION_LIVES.total_seconds()), httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )
    return answer


@router.post("/sign-out", dependencies=[READ])
def sign_out(request: Request, session: SessionDep) -> Response:
    sessions.close(session, request.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(COOKIE)
    return answer


def _local(url: str) -> str:
    """An address on this server; anything else becomes the overview."""
    parts = urlsplit(url)
    return url if url.startswith("/") and not url.startswith(("//", "/\\")) and not parts.netloc and "\\" not in url else "/"
