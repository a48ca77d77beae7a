"""One reader of new events for all streams of a process, and what each stream is sent.

A stream is only a cursor: it takes what is newer from the ring, or from the database when it is older than the ring. So a
slow browser costs no memory, and none gets an event twice or not at all. Who may listen is the route's business.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count, takewhile
from typing import Any, TypeVar

import orjson
from fastapi.sse import ServerSentEvent
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session

from app import broker, db, doorbell
from app.errors import DatabaseAway
from app.events import service as events
from app.models import Event
from app.outages import Outages, PartName

RING = 4096
BATCH = 500
POLL_SECONDS = 0.25
"""How late an event may come when no doorbell tells of it."""
MERGE_SECONDS = 0.05
"""Doorbells that ring closer together than this cost one read and one wake-up of the streams."""
PING_SECONDS = 15.0
"""Silence after which a stream says that it lives. A comment would do for proxies, but a browser does not tell its page of comments."""
AWAY_SECONDS = 1.0
"""Between two tries of a database or a Redis that does not answer."""

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class Closed(Exception):
    """The hub was closed while it waited for the database."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An event as it is sent, serialised once for all streams."""

    id: int
    run_id: int | None
    sse: ServerSentEvent


def frame(event: Event) -> Frame:
    text = orjson.dumps(event.model_dump()).decode()
    return Frame(event.id, event.run_id, ServerSentEvent(raw_data=text, event=event.kind, id=str(event.id)))


class Hub:
    """Reads new events once and wakes the streams. `run` it in the loop that serves them, and `close` it before that loop is to end."""

    def __init__(self, sessions: Callable[[], Session], broker_url: str | None, outages: Outages) -> None:
        self._sessions = sessions
        self._outages = outages
        outages.when_changed = self._wake
        self._redis_url = broker_url if broker_url and broker.is_redis(broker_url) else None
        self._ring: deque[Frame] = deque(maxlen=RING)
        self._floor = self._head = 0  # the ring holds every event above floor, up to head
        self._begun = asyncio.Event()  # head is known
        self._bell = asyncio.Event()  # something may be in the database
        self._news = asyncio.Event()  # something is in the ring; replaced at each delivery
        self._closed = False
        self.clients = 0
        """Streams that are open."""

    async def run(self) -> None:
        """Until closed. A database that is away is waited for: the streams stay open and miss nothing."""
        listening = asyncio.create_task(self._listen())
        try:
            self._head = self._floor = await self._ask(events.latest)
            self._begun.set()
            while not self._closed:
                self._bell.clear()
                fresh = await self._ask(_after, self._head)
                self._deliver(fresh)
                if len(fresh) < BATCH:
                    await self._wait()
        except Closed:
            pass
        finally:
            self.close()
            listening.cancel()

    def close(self) -> None:
        """End all streams. Their browsers come back, to whoever serves then, with the last id they saw."""
        self._closed = True
        self._begun.set()
        self._bell.set()
        self._wake()

    async def stream(self, last_id: int | None = None, run_id: int | None = None) -> AsyncIterator[ServerSentEvent]:
        """Every event after `last_id`, or from now on without one. The first is a `hello` with the id that the stream starts after.

        It says whether that is `complete`: events are kept for some hours, so who was away for longer reads its pages anew. Whenever
        that changes come the `outages`: which parts of the house do not answer, since when. Those and pings have no id.
        """
        told: Mapping[PartName, datetime] = {}
        with contextlib.suppress(Closed), self._counted():
            last, complete = await self._start(last_id)
            yield ServerSentEvent(data={"complete": complete}, event="hello", id=str(last))
            while not self._closed:
                news = self._news
                if told != (outages := self._outages.now()):
                    told = outages
                    yield ServerSentEvent(data=outages, event="outages")
                frames, last = await self._newer(last, run_id)
                for each in frames:
                    yield each.sse
                if last >= self._head and not await _set_within(news, PING_SECONDS):
                    yield ServerSentEvent(data={}, event="ping")

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.clients += 1
        try:
            yield
        finally:
            self.clients -= 1

    async def _start(self, last_id: int | None) -> tuple[int, bool]:
        await self._begun.wait()
        if last_id is None:
            return self._head, True
        if self._floor <= last_id <= self._head:
            return last_id, True
        oldest, latest = await self._ask(lambda session: (events.oldest(session), events.latest(session)))
        # An id beyond the newest one comes from another database; one beyond our head only from a process that is ahead of us.
        return min(last_id, latest), oldest - 1 <= last_id <= latest

    async def _newer(self, last: int, run_id: int | None) -> tuple[Sequence[Frame], int]:
        """Frames of this run after `last`, and the id up to which none is left out."""
        head = self._head
        if last >= self._floor:
            newer = list(takewhile(lambda each: each.id > last, reversed(self._ring)))
            return [each for each in reversed(newer) if run_id in (None, each.run_id)], max(last, head)
        stored = await self._ask(_after, last, run_id)
        return stored, stored[-1].id if len(stored) == BATCH else max(head, *(each.id for each in stored[-1:]), last)

    def _deliver(self, fresh: Sequence[Frame]) -> None:
        if not fresh:
            return
        for each in fresh:
            if len(self._ring) == RING:
                self._floor = self._ring[0].id
            self._ring.append(each)
        self._head = fresh[-1].id
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _wait(self) -> None:
        await asyncio.sleep(MERGE_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), POLL_SECONDS)

    async def _ask(self, query: Callable[..., Answer], *arguments: Any) -> Answer:
        """Ask the database in a thread, again and again while it is away. Raises Closed when that is for nobody any more."""
        for tries in count():
            try:
                return await asyncio.to_thread(self._query, query, *arguments)
            except (DBAPIError, PoolTimeout) as error:
                if self._closed:
                    raise Closed from error
                if not tries:
                    log.warning("The event streams wait for the database. %r", error)
            await asyncio.sleep(AWAY_SECONDS)
        raise AssertionError

    def _query(self, query: Callable[..., Answer], *arguments: Any) -> Answer:
        with self._sessions() as session:
            return query(session, *arguments)

    async def _listen(self) -> None:
        """Hear the doorbells. Only a hint: without a Redis, and while it is away, `run` polls."""
        while self._redis_url:
            with contextlib.suppress(RedisError, OSError):
                async with broker.async_client(self._redis_url) as client, client.pubsub() as doorbells:
                    await doorbells.subscribe(doorbell.CHANNEL)
                    async for _message in doorbells.listen():
                        self._bell.set()
            await asyncio.sleep(AWAY_SECONDS)


async def while_allowed(events: AsyncIterator[ServerSentEvent], ask: Callable[[], Awaitable[bool]]) -> AsyncIterator[ServerSentEvent]:
    """The events, until whoever listens is signed out or their token is revoked; that is noticed within two pings.

    While the database is away nobody can tell. What comes of the house waits for it; what has no id tells nothing of the house, and goes on.
    """
    asked = time.monotonic()
    async for event in events:
        while time.monotonic() - asked >= PING_SECONDS:
            try:
                if not await ask():
                    return
                asked = time.monotonic()
            except (DatabaseAway, *db.AWAY):
                if event.id is None:
                    break
                await asyncio.sleep(AWAY_SECONDS)
        yield event


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(event.wait(), seconds)
    return False


def _after(session: Session, last_id: int, run_id: int | None = None) -> list[Frame]:
    return [frame(each) for each in events.after(session, last_id, run_id, BATCH)]
