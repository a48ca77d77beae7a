"""The live stream of everything. A run's own stream is in `app/runs/routes.py`."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.access.permissions import READ, StillAllowedDep
from app.deps import StateDep
from app.events.stream import while_allowed

router = APIRouter(prefix="/events", tags=["live"], dependencies=[READ])


def last_event_id(
    header: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, description="What a browser sends when it reconnects.")] = None,
    query: Annotated[int | None, Query(alias="last_event_id", ge=0, description="The same for who cannot set headers.")] = None,
) -> int | None:
    """The header first: a browser that reconnects repeats the address it was given, with a query that is old by now."""
    return query if header is None else header


LastEventId = Annotated[int | None, Depends(last_event_id)]


@router.get("", response_class=EventSourceResponse)
async def stream_events(state: StateDep, last_id: LastEventId, allowed: StillAllowedDep) -> AsyncIterator[ServerSentEvent]:
    """Every event from now on, or after the one named. The first is `hello`, with the id that the stream starts after."""
    async for event in while_allowed(state.hub.stream(last_id), allowed):
        yield event
