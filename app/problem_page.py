"""The page that a person is shown where a script gets a problem document: what happened, what to do, where to go on.

Asks no database: that may be what is away, and a page that says so must not wait for it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import Request, Response

from app.access import cookies
from app.i18n import _
from app.pages import NAVIGATION, html

ADVICE = {
    HTTPStatus.BAD_REQUEST: _("Go back, mend what is named here, and send it again."),
    HTTPStatus.UNAUTHORIZED: _("Sign in, then do it again."),
    HTTPStatus.FORBIDDEN: _("The settings of this server, or what you signed in with, would have to allow it first."),
    HTTPStatus.NOT_FOUND: _("It may have been deleted, or there is a mistake in the address."),
    HTTPStatus.METHOD_NOT_ALLOWED: _("This address only takes what a form sends. Open the page that has the form."),
    HTTPStatus.CONFLICT: _("Look at how things stand now, then decide again."),
    HTTPStatus.UNPROCESSABLE_ENTITY: _("Go back, mend what is named here, and send it again."),
    HTTPStatus.INTERNAL_SERVER_ERROR: _("Runs at work go on. Try again; if it happens again, tell whoever looks after this server that number."),
    HTTPStatus.SERVICE_UNAVAILABLE: _("Runs at work go on. Try again in a few seconds."),
}
"""What can be done about a status, as far as the status alone tells."""


@dataclass(frozen=True)
class WayOut:
    url: str
    label: str


def render(request: Request, status: int, detail: str) -> Response:
    """In the frame for a signed-in person."""
    return html(
        request, "problem.html", status,
        title=HTTPStatus(status).phrase, detail=detail, advice=ADVICE.get(HTTPStatus(status), ""), now=datetime.now(UTC),
        is_signed_in=_is_signed_in(request, status), way_out=_way_out(request),
        can_be_tried_again=request.method == "GET" and status >= HTTPStatus.INTERNAL_SERVER_ERROR,
    )  # fmt: skip


def wait_for_database(request: Request, since: datetime, headers: dict[str, str]) -> Response:
    """A page that asks whether the database is back, and then reads anew what was asked for."""
    answer = html(
        request, "database_away.html", HTTPStatus.SERVICE_UNAVAILABLE,
        since=since, now=datetime.now(UTC), is_signed_in=_is_signed_in(request, HTTPStatus.SERVICE_UNAVAILABLE),
        can_be_tried_again=request.method == "GET", way_out=_way_out(request),
    )  # fmt: skip
    answer.headers.update(headers)
    return answer


def _is_signed_in(request: Request, status: int) -> bool:
    """As far as this browser knows. Whether its session still lives is in the database, and the frame shows nothing that is in there."""
    return cookies.session(request) in request.cookies and status != HTTPStatus.UNAUTHORIZED


def _way_out(request: Request) -> WayOut:
    """To the page of ours that the person came from, else to the part of the dashboard in which this address lies."""
    came_from, host = request.headers.get("Referer", ""), request.headers.get("Host")
    if came_from.startswith((f"http://{host}/", f"https://{host}/")) and came_from != str(request.url):
        return WayOut(came_from, _("Back to where you were"))
    around = [(url, label) for url, _icon, label in NAVIGATION if request.url.path.startswith(url.rstrip("/") + "/")]
    url, label = max(around, key=lambda each: len(each[0]))
    return WayOut(url, _("Go to {page}").format(page=label))
