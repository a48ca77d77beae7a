"""The first page, whole or in its pieces, and the workers at the foot of every page's side bar."""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Response
from sqlmodel import Session

from app.access.permissions import READ
from app.overview import service as overview
from app.pages import FrameDep

router = APIRouter(include_in_schema=False, dependencies=[READ])

Part = Literal["workers", "queue", "running", "recent", "attention"]


def _attention(session: Session) -> dict[str, Any]:
    troubles, count = overview.attention(session)
    gates = overview.gates(session)
    shown = {"gates": gates[: overview.ATTENTION_ROWS], "gate_count": len(gates)}
    return shown | {"troubles": troubles, "count": count, "days": overview.ATTENTION_LASTS.days}


def _workers(session: Session) -> dict[str, Any]:
    workers = overview.workers(session)
    return {"workers": workers, "cards": overview.gpus(workers)}


PIECES: dict[Part, Callable[[Session], dict[str, Any]]] = {
    "workers": _workers,
    "queue": lambda session: {"queue": overview.queued(session, overview.QUEUE_ROWS)},
    "running": lambda session: {"running": overview.running(session)},
    "recent": lambda session: {"recent": overview.recent(session)},
    "attention": _attention,
}


@router.get("/")
def show_overview(frame: FrameDep, part: Part | None = None) -> Response:
    if part:
        return frame.render(f"overview/_{part}.html", **PIECES[part](frame.session))
    shown = {name: value for piece in PIECES.values() for name, value in piece(frame.session).items()}
    return frame.render("overview.html", has_runs=overview.has_runs(frame.session), **shown)


@router.get("/house")
def show_house(frame: FrameDep) -> Response:
    return frame.render("_house.html")
