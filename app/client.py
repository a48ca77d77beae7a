"""A small client of the REST API, for the command line and the demo. It knows addresses and errors, not what a run is."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from app.errors import AppError
from app.i18n import _

PREFIX = "/api/v1"
RECONNECT_SECONDS = 1.0
SILENT_SECONDS = 60.0
"""A live stream says something every 15 s; one that is silent for longer is dead, whatever the kernel thinks."""


class ApiError(AppError):
    """The server refused, and says why with which `status`; 503 when none answered."""

    def __init__(self, message: str, status: int = 503) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class LiveEvent:
    """One event of a stream. `data` is the parsed JSON."""

    id: int
    kind: str
    data: Any


class Client:
    """A context manager. Every call raises ApiError when it cannot have what it asks for."""

    def __init__(self, url: str, token: str, timeout: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url.rstrip("/") + PREFIX, headers=headers, timeout=timeout)

    def get(self, path: str, **params: Any) -> Any:
        return self._ask("GET", path, params=_given(params))

    def post(self, path: str, body: Mapping[str, Any] | None = None, **params: Any) -> Any:
        return self._ask("POST", path, json=body or {}, params=_given(params))

    def delete(self, path: str, **params: Any) -> None:
        self._ask("DELETE", path, params=_given(params))

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, over all its pages."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **params)
            yield from page["items"]
            if (cursor := page["next_cursor"]) is None:
                return

    def events(self, path: str = "/events", last_id: int | None = None) -> Iterator[LiveEvent]:
        """Events for as long as the caller listens; a broken stream is taken up where it broke."""
        while True:
            try:
                for event in self._stream(path, last_id):
                    last_id = event.id
                    yield event
            except httpx.TransportError:
                pass
            time.sleep(RECONNECT_SECONDS)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        try:
            response = self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise ApiError(_("No server answers at {url}: {error}").format(url=self._http.base_url, error=error)) from None
        _refuse(response)
        return response.json() if response.content else None

    def _stream(self, path: str, last_id: int | None) -> Iterator[LiveEvent]:
        headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(10.0, read=SILENT_SECONDS)) as response:
            if response.is_error:
                response.read()
            _refuse(response)
            yield from parse_events(response.iter_lines())


def parse_events(lines: Iterable[str]) -> Iterator[LiveEvent]:
    """Server-sent events out of their lines; comments are dropped, and so is an event that the stream broke off. A ping has the id before it."""
    fields: dict[str, str] = {}
    last_id = 0
    for line in lines:
        if line:
            name, _colon, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                last_id = int(fields.get("id", last_id))
                yield LiveEvent(last_id, fields.get("event", "message"), orjson.loads(fields["data"]))
            fields = {}


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _refuse(response: httpx.Response) -> None:
    if not response.is_error:
        return
    if response.headers.get("content-type") != "application/problem+json":
        text = _("{url} answered {status}, and not as PanoLLaVA does.").format(url=response.url, status=response.status_code)
        raise ApiError(text, response.status_code)
    problem = response.json()
    lines = [problem["detail"], *(f"{each['field']}: {each['message']}" for each in problem.get("errors", []))]
    raise ApiError("\n".join(lines), response.status_code)
