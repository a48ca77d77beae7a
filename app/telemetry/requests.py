"""What this server process sees: how long each request takes until its answer begins, how many streams are open, whether its broker answers."""

import re
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry.json_logs import about

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OF_RUN = re.compile(r"(?:/api/v1)?/runs/(\d{1,18})(?:/|$)")


class Figures:
    """One app's own figures."""

    def __init__(self, streams: Callable[[], int], has_broker: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()
        text = "Seconds until an answer begins; a stream's goes on after that."
        self.latency = Histogram("panollava_request_seconds", text, ["method", "route", "status"], buckets=SECONDS, registry=self.registry)
        clients = Gauge("panollava_sse_clients", "Open event streams.", registry=self.registry)
        clients.set_function(lambda: float(streams()))
        bell = Gauge("panollava_broker_up", "0 while the broker does not answer, and jobs are found by sweeps.", registry=self.registry)
        bell.set_function(lambda: float(has_broker()))


class Watch:
    """Takes the time of every request, and lets its log lines name the run that it is about."""

    def __init__(self, app: ASGIApp, figures: Figures, prefix: str) -> None:
        self._app, self._figures, self._prefix = app, figures, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()

        def note(status: int) -> None:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._figures.latency.labels(method, self._route(scope), str(status)).observe(time.perf_counter() - began)

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        run = _OF_RUN.match(scope["path"])
        with about(**({"run": int(run[1])} if run else {})):
            try:
                await self._app(scope, receive, send_and_note)
            except Exception:  # answered further out, as a defect
                note(500)
                raise

    def _route(self, scope: Scope) -> str:
        """The template of the address: addresses themselves would be series without end."""
        path: str = scope["path"]
        if (route := scope.get("route")) is None:
            return "/static" if path.startswith("/static/") else "none"
        return f"{self._prefix if path.startswith(self._prefix) else ''}{route.path}"
