"""The list of runs in a browser. What it shows comes from `lists` and `rows`; its whole state is in the address."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from app.access.permissions import READ
from app.listing import BLANK_IS_NONE, address
from app.pages import FrameDep
from app.runs import service as runs
from app.runs.table import lists, rows
from app.runs.table.lists import Shown, Sort, Wanted

PER_PAGE = 50
ALWAYS = (Shown.queued, Shown.running, Shown.succeeded, Shown.failed, Shown.stopped, Shown.lost)
"""Statuses that have a button also while no run has them; the others pass quickly."""

router = APIRouter(include_in_schema=False, dependencies=[READ])


@dataclass(frozen=True)
class View:
    """What the address asks for, and the addresses one click away from it."""

    q: str = ""
    status: Shown | None = None
    sort: Sort = Sort.newest
    cursor: int | None = None
    archived: bool = False

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.q, self.status, self.archived)

    @property
    def is_filtered(self) -> bool:
        return bool(self.q or self.status or self.archived)

    @property
    def url(self) -> str:
        """The first page of this list."""
        return self._to()

    def with_status(self, status: Shown | None) -> str:
        return self._to(status=status)

    def sorted_by(self, sort: Sort) -> str:
        return self._to(sort=None if sort is Sort.newest else sort)

    def after(self, cursor: int) -> str:
        return self._to(cursor=cursor)

    def piece(self, name: str, **more: object) -> str:
        return self._to(part=name, **more)

    @property
    def other(self) -> str:
        """The archived runs, or the way back from them."""
        return self._to(archived=None if self.archived else 1)

    def _to(self, **changed: object) -> str:
        kept = {"q": self.q, "status": self.status, "sort": None if self.sort is Sort.newest else self.sort, "archived": 1 if self.archived else None}
        return address("/runs", **kept | changed)


@router.get("/runs")
def list_runs(
    frame: FrameDep,
    q: Annotated[str, Query(max_length=200)] = "",
    status: Annotated[Shown | None, BLANK_IS_NONE] = None,
    sort: Annotated[Sort | None, BLANK_IS_NONE] = None,
    cursor: int | None = None,
    archived: bool = False,
    part: Literal["row", "statuses"] | None = None,
    id: int = 0,
) -> Response:
    """The page; or one row of it, the run `id`; or how many runs have each status, and how many were launched after the run `id`."""
    view, session = View(q.strip(), status, sort or Sort.newest, cursor, archived), frame.session
    if part == "row":
        return frame.render("runs/_row.html", row=rows.of(session, [runs.get(session, id)])[0])
    tally = lists.tally(session, view.q, archived)
    shown: dict[str, Any] = {"view": view, "tally": tally, "statuses": _statuses(tally, status), "total": sum(tally.values())}
    if part == "statuses":
        return frame.render("runs/_statuses.html", newest=id, new=lists.newer(session, view.wanted, id), **shown)
    found = lists.page(session, view.wanted, view.sort, cursor, PER_PAGE + 1)
    listed, newest = rows.of(session, found[:PER_PAGE]), lists.newest(session)
    after = found[PER_PAGE - 1].id if len(found) > PER_PAGE else None
    return frame.render("runs/list.html", rows=listed, newest=newest, new=0, after=after, sorts=Sort, **shown)


def _statuses(tally: dict[Shown, int], chosen: Shown | None) -> list[Shown]:
    return [each for each in Shown if each in ALWAYS or tally[each] or each is chosen]
