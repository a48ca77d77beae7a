"""A request that met another one is handled once more, from its start: nothing of it was written, and what was in its way is settled by then.

PostgreSQL lets two work at once, so a run may be deleted under the hands of who stops it, and two who want each other's rows end one of them.
What is no race fails again, and is answered as it is.
"""

import logging

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import db

MOST = 3
"""Times that a request is handled."""

log = logging.getLogger(__name__)


class Again:
    """Innermost of all middleware, for what comes out of a route. An answer that has begun is not taken back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        asked, exchange = dict(scope), _Exchange(receive, send)
        for left in reversed(range(MOST)):
            try:
                return await self._app(scope, exchange.receive, exchange.send)
            except SQLAlchemyError as error:
                if exchange.has_begun or not left or not db.lost_a_race(error):
                    raise
                log.info("%s %s met another request and is handled again. %r", scope["method"], scope["path"], error)
            scope.clear()
            scope.update(asked)
            exchange.rewind()


class _Exchange:
    """One request, whose body can be read again."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._body: list[Message] = []
        self._read = 0
        self.has_begun = False
        """Something was answered."""

    async def receive(self) -> Message:
        if self._read == len(self._body):
            self._body.append(await self._receive())
        self._read += 1
        return self._body[self._read - 1]

    async def send(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)

    def rewind(self) -> None:
        self._read = 0
