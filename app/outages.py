"""Which parts of the house do not answer: looked at all the time in the background, so that no page has to wait to find out.

What this process has seen itself, by its own clock. What a page makes of it is the page's business.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import sessionmaker
from sqlmodel import Session, select

from app import db, doorbell
from app.errors import DatabaseAway
from app.models import Event

PartName = Literal["database", "writes", "broker"]
"""`writes` are away while the database answers and can only be read."""

LOOK_SECONDS = 1.0
SILENT_LOOKS = 10
"""A part that says neither yes nor no for so many times LOOK_SECONDS is away. Counted, not timed: a machine that stalled has waited for nobody."""

log = logging.getLogger(__name__)


@dataclass
class Part:
    name: PartName
    trouble: Callable[[], str | None]
    """Looks: what is wrong, or None."""
    silence: str | None = "it says nothing"
    """What it means when a look does not end."""
    since: datetime | None = None
    """Since when it has not answered, as far as this process knows."""


class Outages:
    """Watches the parts of one house. `watch` runs in the server's loop until it is cancelled."""

    def __init__(self, sessions: Callable[[], Session], broker_url: str | None) -> None:
        """The sessions are of an engine that nobody else uses: a pool that others have emptied is no outage."""
        self.database = Part("database", lambda: _trouble(sessions))
        self.writes = Part("writes", lambda: _refusal(sessions), silence=None)
        self._parts = [self.database, self.writes]
        if broker_url:
            self._parts.append(Part("broker", lambda: doorbell.trouble(broker_url)))
        self.when_changed: Callable[[], None] = lambda: None

    def now(self) -> Mapping[PartName, datetime]:
        """The parts that do not answer, each with the moment since when."""
        return {part.name: part.since for part in self._parts if part.since}

    def refuse(self) -> None:
        """Raises DatabaseAway while it is."""
        if since := self.database.since:
            raise DatabaseAway(since)

    def look(self) -> Mapping[PartName, datetime | None]:
        """Every part there is, with the moment since when it does not answer. The database, unless it is known to be away, is asked now."""
        told = {part.name: part.since for part in self._parts}
        if self.database.since is None and self.database.trouble():
            told["database"] = datetime.now(UTC)
        return told

    async def watch(self) -> None:
        threads = ThreadPoolExecutor(len(self._parts))  # the loop's own may all wait for the part that is away
        try:
            await asyncio.gather(*(self._watch(part, threads) for part in self._parts))
        finally:
            threads.shutdown(wait=False)

    async def _watch(self, part: Part, threads: ThreadPoolExecutor) -> None:
        while True:
            looking = asyncio.get_running_loop().run_in_executor(threads, part.trouble)
            if not await _ends(looking):
                self._note(part, part.silence)
            self._note(part, await looking)
            await asyncio.sleep(LOOK_SECONDS)

    def _note(self, part: Part, trouble: str | None) -> None:
        if (trouble is None) == (part.since is None):
            return
        if trouble is None:
            log.warning("Back: %s, away since %s.", part.name, part.since)
        else:
            log.error("Away: %s. %s", part.name, trouble)
        part.since = datetime.now(UTC) if trouble else None
        self.when_changed()


@dataclass(frozen=True)
class Guarded:
    """Sessions on a database while nothing is known against it. Else it raises DatabaseAway at once: many who wait for it hold up everybody."""

    sessions: sessionmaker[Session]
    outages: Outages

    def __call__(self) -> Session:
        self.outages.refuse()
        return self.sessions()

    def begin(self) -> AbstractContextManager[Session]:
        self.outages.refuse()
        return self.sessions.begin()


async def _ends(looking: asyncio.Future[str | None]) -> bool:
    for _ in range(SILENT_LOOKS):
        if (await asyncio.wait([looking], timeout=LOOK_SECONDS))[0]:
            return True
    return False


def _trouble(sessions: Callable[[], Session]) -> str | None:
    try:
        with sessions() as session:
            session.exec(select(Event.id).limit(1)).first()
    except SQLAlchemyError as error:
        return str(getattr(error, "orig", None) or error).strip()
    return None


def _refusal(sessions: Callable[[], Session]) -> str | None:
    """Of a database that does not answer the other part tells."""
    with suppress(SQLAlchemyError), sessions() as session:
        return "It can only be read." if db.is_read_only(session) else None
    return None
