"""Signing in and out in a browser."""

from contextlib import suppress
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.access import cookies, sessions
from app.access.permissions import READ, check_origin
from app.deps import SessionDep
from app.errors import Unauthorized
from app.pages import html

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def show_sign_in(request: Request, session: SessionDep, key: str = "", next: str = "/") -> Response:
    """The key of a link moves from the address to a cookie at once, and is sent by the form's script or by a click: whoever only previews a
    link does not use it up, and no page that has a key in its address is ever a referrer."""
    if key:
        return _put_aside(request, key, _local(next))
    with suppress(Unauthorized):
        sessions.find(session, request.cookies.get(cookies.session(request), ""))
        return RedirectResponse(_local(next), 303)
    return html(request, "sign_in.html", has_key=cookies.key(request) in request.cookies, next=_local(next), error=None)


def _put_aside(request: Request, key: str, next: str) -> Response:
    answer = RedirectResponse("/sign-in" if next == "/" else f"/sign-in?{urlencode({'next': next})}", 303, {"Referrer-Policy": "no-referrer"})
    lives = int(sessions.LINK_LIVES.total_seconds())
    answer.set_cookie(cookies.key(request), key, lives, path="/sign-in", httponly=True, samesite="lax", secure=cookies.is_tls(request))
    return answer


@router.post("/sign-in")
def sign_in(request: Request, session: SessionDep, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/") -> Response:
    """With the key that the form has, or that a link has left with this browser."""
    check_origin(request)
    try:
        secret = sessions.open_session(session, key.strip() or request.cookies.get(cookies.key(request), ""))
    except Unauthorized as error:
        answer: Response = html(request, "sign_in.html", error.status, has_key=False, next=_local(next), error=str(error))
    else:
        answer = RedirectResponse(_local(next), 303)
        lives = int(sessions.SESSION_LIVES.total_seconds())
        answer.set_cookie(cookies.session(request), secret, lives, httponly=True, samesite="lax", secure=cookies.is_tls(request))
    answer.delete_cookie(cookies.key(request), path="/sign-in")
    return answer


@router.post("/sign-out", dependencies=[READ])
def sign_out(request: Request, session: SessionDep) -> Response:
    sessions.close(session, request.cookies.get(cookies.session(request), ""))
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(cookies.session(request))
    return answer


def _local(url: str) -> str:
    """An address on this server; anything else becomes the overview."""
    parts = urlsplit(url)
    return url if url.startswith("/") and not url.startswith(("//", "/\\")) and not parts.netloc and "\\" not in url else "/"
