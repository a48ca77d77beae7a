"""Where the weights of a run come from, and which runs started from its own. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from app.models import Checkpoint, Run, StageRun
from panollava.stages import Stage

MOST = 50
"""Ancestors that are followed back."""


@dataclass(frozen=True)
class Link:
    """A run that started from another one's checkpoint, or from whose checkpoint another started."""

    run_id: int
    name: str | None
    """None once the run is deleted."""
    stage: Stage
    checkpoint_id: int
    step: int
    sha256: str

    @property
    def label(self) -> str:
        """`resampler@500`"""
        return f"{self.stage}@{self.step}"


@dataclass(frozen=True)
class Child:
    """A run that started from a checkpoint of this one."""

    run_id: int
    name: str
    link: Link
    """Back to this run."""
    stale_at: datetime | None
    stale_because: str | None


def origin(session: Session, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a run keeps of the checkpoint it starts from, also when that is deleted."""
    stage = session.get_one(StageRun, checkpoint.stage_id).stage
    facts = {"stage": stage, "checkpoint_id": checkpoint.id, "step": checkpoint.step, "sha256": checkpoint.sha256}
    return {"run_id": checkpoint.run_id} | facts


def ancestors(session: Session, run: Run) -> list[Link]:
    """The checkpoint it started from, then the one that run started from, and so on."""
    found: list[Link] = []
    current: Run | None = run
    while current and current.origin and len(found) < MOST:
        parent = session.get(Run, current.parent_id)
        found.append(_link(current.origin, parent.name if parent else None))
        current = parent
    return found


def children(session: Session, run: Run) -> Sequence[Child]:
    """Oldest first."""
    query = select(Run, StageRun).join(StageRun, col(StageRun.run_id) == Run.id).where(Run.parent_id == run.id, StageRun.position == 0)
    return [
        Child(each.id, each.name, _link(each.origin, run.name), first.stale_at, first.stale_because)
        for each, first in session.exec(query.order_by(col(Run.id)))
        if each.origin
    ]


def _link(kept: dict[str, Any], name: str | None) -> Link:
    return Link(name=name, **kept | {"stage": Stage(kept["stage"])})
