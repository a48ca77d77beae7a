"""How long a stage will take that has not begun: as long as the same work took before. Reads only.

Nothing is concluded from the other stages of a run, whose steps cost something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.models import Job, JobStatus, Run, StageRun
from panollava.forecast import work
from panollava.stages import Stage

LOOKED_AT = 50
"""Most finished stages that are held against this one, the newest first."""


@dataclass(frozen=True)
class Forecast:
    """Seconds a stage will take, and the run that tells."""

    seconds: float
    run_id: int


def forecast(session: Session, run: Run, stage: Stage) -> Forecast | None:
    """From the newest other run in which this stage did the same work in one attempt; None if there is none."""
    return foreseen(session, run.config, stage, other_than=run.id)


def foreseen(session: Session, config: Mapping[str, Any], stage: Stage, other_than: int | None = None) -> Forecast | None:
    """The same for a config that need not be a run's."""
    query = select(Job, Run).join(StageRun, col(StageRun.id) == Job.stage_id).join(Run, col(Run.id) == StageRun.run_id)
    query = query.where(StageRun.stage == stage, Job.status == JobStatus.succeeded, Job.attempt == 1, Run.id != other_than)
    wanted = work(config, stage)
    for job, other in session.exec(query.order_by(col(Job.id).desc()).limit(LOOKED_AT)):
        if job.started_at and job.finished_at and work(other.config, stage) == wanted:
            share = _passes(config, stage) / _passes(other.config, stage)
            return Forecast((job.finished_at - job.started_at).total_seconds() * share, other.id)
    return None


def _passes(config: Mapping[str, Any], stage: Stage) -> int:
    """Epochs, unless the steps are counted."""
    settings = config["stages"][stage]
    return 1 if settings.get("max_steps") else int(settings["epochs"])
