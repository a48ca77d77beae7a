"""What a route may ask for: a session, the settings, the doorbell, its place in a list."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Self, TypeVar

from fastapi import BackgroundTasks, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app import discards, doorbell
from app.datasets.checks import Checks
from app.events.stream import Hub
from app.outages import Guarded, Outages
from app.settings import Settings
from app.telemetry.requests import Figures


@dataclass(frozen=True)
class State:
    """What one app process holds on to."""

    settings: Settings
    reading: Guarded
    writing: Guarded
    hub: Hub
    figures: Figures
    outages: Outages
    checks: Checks = field(default_factory=Checks)


def state(request: Request) -> State:
    held: State = request.app.state.panollava
    return held


StateDep = Annotated[State, Depends(state)]


def session(request: Request, state: StateDep) -> Iterator[Session]:
    """A reader's session for GET; for the rest one transaction, committed before the answer is sent and only if the route did not raise."""
    if request.method == "GET":
        with state.reading() as session:
            yield session
    else:
        with state.writing.begin() as session:
            yield session


def settings(state: StateDep) -> Settings:
    return state.settings


def bell(background: BackgroundTasks, state: StateDep) -> Callable[[int], None]:
    """Wake a worker with so many devices; after the answer, so that the rows are committed and nobody waits for the broker."""
    return lambda devices: background.add_task(doorbell.ring, devices, state.settings.broker_url)


def sweep(background: BackgroundTasks, state: StateDep) -> Callable[[], None]:
    """Remove from the store what this request gives up; after the answer, so that the rows are committed and nobody waits for the store."""
    return lambda: background.add_task(discards.sweep, state.reading.sessions, state.writing.sessions)


SessionDep = Annotated[Session, Depends(session, scope="function")]
SettingsDep = Annotated[Settings, Depends(settings)]
BellDep = Annotated[Callable[[int], None], Depends(bell)]
SweepDep = Annotated[Callable[[], None], Depends(sweep)]
Cursor = Annotated[int | None, Query(description="The `next_cursor` of the page before.")]
RequestKey = Annotated[str | None, Field(min_length=1, max_length=200, description="Any text of yours: the same request sent again changes nothing.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Most items on this page.")]


class Row(BaseModel):
    """Base of what the API answers with: read from rows as they are."""

    model_config = ConfigDict(from_attributes=True)


Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """One page of a list, newest first."""

    items: list[Item]
    next_cursor: int | None

    @classmethod
    def of(cls, rows: Sequence[Any], limit: int, items: Sequence[Any] | None = None) -> Self:
        """The rows, or what is to be shown for them. A full page points on with the id of its last row; the page there may be empty."""
        return cls.model_validate({"items": rows if items is None else items, "next_cursor": rows[-1].id if len(rows) == limit else None})
