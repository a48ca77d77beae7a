"""The edge: whatever was raised below becomes a problem document (RFC 9457). Nothing else in the app builds an error response."""

import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel
from sqlalchemy.exc import DataError, InternalError
from starlette.exceptions import HTTPException

from app import db, problem_page
from app.access.permissions import SAFE
from app.errors import AppError, DatabaseAway, DatabaseReadOnly, Unauthorized, status_of
from app.i18n import _
from app.pages import is_page
from panollava.errors import BadInput

log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """What is wrong with one field; `field` is dotted."""

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. `detail` is a sentence for a person; `errors` is there when fields are at fault, `code` where the status does not tell all."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str | None = None
    since: datetime | None = None
    """Of `database_away` and `database_read_only`: since when, as far as this server knows."""
    errors: list[FieldProblem] = []


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


RETRY_SECONDS = "5"
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document.",
        "model": Problem,
        "content": {ProblemResponse.media_type: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
"""For OpenAPI: every route may answer with a problem."""


def problem(request: Request, status: int, detail: str, errors: Sequence[FieldProblem] = (), headers: dict[str, str] | None = None) -> Response:
    """The document, or for a person with a browser a page that says the same; who is not signed in is sent to where that is done."""
    if is_page(request) and "HX-Request" not in request.headers:
        if status == HTTPStatus.UNAUTHORIZED and request.method == "GET":
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse("/sign-in" if asked == "/" else f"/sign-in?next={quote(asked, safe='')}", 303)
        return problem_page.render(request, status, detail)
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, instance=request.url.path, errors=list(errors))
    return ProblemResponse(body.model_dump(), status, headers)


def database_away(request: Request, error: DatabaseAway) -> Response:
    """For whoever opens a page, one of its own, which waits for the database. A piece of a page gets the document."""
    wait = {"Retry-After": RETRY_SECONDS}
    if is_page(request) and "HX-Request" not in request.headers:
        return problem_page.wait_for_database(request, error.since, wait)
    return _document(request, error, wait)


def database_read_only(request: Request, error: DatabaseReadOnly) -> Response:
    """What was sent is not stored; what can be read goes on."""
    if is_page(request) and "HX-Request" not in request.headers:
        return problem_page.render(request, error.status, str(error))
    return _document(request, error, {"Retry-After": RETRY_SECONDS})


def _document(request: Request, error: DatabaseAway | DatabaseReadOnly, headers: dict[str, str]) -> Response:
    body = Problem(
        title=HTTPStatus(error.status).phrase, status=error.status, detail=str(error), instance=request.url.path, code=error.code, since=error.since
    )  # fmt: skip
    return ProblemResponse(body.model_dump(mode="json"), error.status, headers)


def handle_problems(app: FastAPI) -> None:
    """Translate every exception that a route of this app lets out."""

    @app.exception_handler(AppError)
    def refused(request: Request, error: AppError) -> Response:
        headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
        return problem(request, error.status, str(error), headers=headers)

    @app.exception_handler(DatabaseAway)
    def known_away(request: Request, error: DatabaseAway) -> Response:
        return database_away(request, error)

    @app.exception_handler(BadInput)
    def bad_input(request: Request, error: BadInput) -> Response:
        fields = [FieldProblem(field=field, message=text) for field, text in error.fields]
        return problem(request, status_of(error), str(error), fields)

    @app.exception_handler(RequestValidationError)
    def invalid_request(request: Request, error: RequestValidationError) -> Response:
        errors = [FieldProblem(field=_dotted(each["loc"]), message=each["msg"]) for each in error.errors()]
        detail = "\n".join(f"{each.field}: {each.message}." for each in errors)
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        return problem(request, error.status_code, error.detail, headers=dict(error.headers or {}))

    @app.exception_handler(OverflowError)
    @app.exception_handler(DataError)
    def number_too_large(request: Request, error: Exception) -> Response:
        """Ids have 32 bits on PostgreSQL and 64 on SQLite, whose driver refuses what is larger by itself."""
        if isinstance(error, OverflowError) and "SQLite" not in str(error):
            return defect(request, error)
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, _("A number in the address or the request is too large."))

    def found_away(request: Request, error: Exception) -> Response:
        """By this request, perhaps before the watch has seen it."""
        if db.lost_a_race(error):
            raise error
        log.error("%s %s: the database does not answer.", request.method, request.url.path, exc_info=error)
        since = request.app.state.panollava.outages.now().get("database")
        return database_away(request, DatabaseAway(since or datetime.now(UTC)))

    @app.exception_handler(InternalError)
    def only_read(request: Request, error: InternalError) -> Response:
        """What only reads has sessions that may do nothing else: a write in there is a defect."""
        if request.method in SAFE or not db.is_refused_write(error):
            return defect(request, error)
        log.error("%s %s: the database can only be read.", request.method, request.url.path)
        since = request.app.state.panollava.outages.now().get("writes")
        return database_read_only(request, DatabaseReadOnly(since or datetime.now(UTC)))

    for kind in db.AWAY:
        app.exception_handler(kind)(found_away)

    @app.exception_handler(Exception)
    def defect(request: Request, error: Exception) -> Response:
        number = secrets.token_hex(8)
        log.error("Request %s: %s %s failed.", number, request.method, request.url.path, exc_info=error)
        return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, _("This is a defect. The server's log has it as request {id}.").format(id=number))


def _dotted(loc: Sequence[int | str]) -> str:
    """("body", "config", "lr") -> config.lr; the first part says only where in the request it stood."""
    return ".".join(str(part) for part in loc[1:]) or str(loc[0])
