"""Run the web application as a process: tables brought up to date, a broker at hand, streams ended when it is told to leave."""

import contextlib
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn

from app import broker, db
from app.access.sessions import URL_FILE, base_url
from app.main import create_app
from app.runs import removal
from app.settings import Settings
from app.telemetry import json_logs
from panollava.rundir import write_whole


class Server(uvicorn.Server):
    """uvicorn waits for open connections before it tells the app to stop; an event stream stays open until it is told."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.panollava.hub.close()
        app.state.panollava.checks.close()
        await super().shutdown(sockets)


def hide_keys(record: logging.LogRecord) -> bool:
    """A filter of the access log: the key of a sign-in link is a secret until it is used. uvicorn's third argument is the address."""
    client, method, path, *rest = record.args if isinstance(record.args, tuple) else ()
    if str(path).startswith("/sign-in?"):
        record.args = (client, method, "/sign-in?...", *rest)
    return True


def _logging(settings: Settings) -> dict[str, Any]:
    """uvicorn's own for people; for machines all lines of the process in one form."""
    if settings.log_format == "text":
        return {}
    json_logs.set_up(settings.log_format)
    return {"log_config": None}


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. The embedded broker ends with whoever started it first, this or a worker of the same home."""
    # uvicorn passes the signal on when it has stopped: as an exception it still lets the broker be stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with db.transaction(settings.database_url) as session:
        left = removal.sweep(session, settings.artifacts)
    removal.empty(left)
    with broker.embedded(settings.home, settings.broker_url) as bell, contextlib.suppress(KeyboardInterrupt):
        app = create_app(settings.model_copy(update={"broker_url": bell.url}))
        settings.home.mkdir(parents=True, exist_ok=True)
        write_whole(settings.home / URL_FILE, base_url(settings))
        config = uvicorn.Config(app, host=settings.host, port=settings.port, **_logging(settings))  # sets logging up
        logging.getLogger("uvicorn.access").addFilter(hide_keys)
        Server(config).run()
