"""The legs of a run's track, from its rows: what each stage starts from, how long it has worked, what it has come to."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from app.checkpoints import service as checkpoints
from app.models import Attempt, Run, StageRun
from app.runs.page import track
from app.runs.page.forecast import forecast
from app.runs.page.saved import Saved
from app.runs.page.track import Leg, Start
from app.runs.schemas import StageOut
from app.runs.service import RunState, StageState


def gather(
    session: Session, state: RunState, told: Sequence[StageOut], attempts: Sequence[Attempt], files: Sequence[Saved], now: datetime
) -> Iterator[Leg]:  # fmt: skip
    """One for each stage, in training order, with the attempts and files of all."""
    for each, said in zip(state.stages, told, strict=True):
        its = [attempt for attempt in attempts if attempt.job_id == said.job_id]
        yield Leg(
            told=said, is_current=each.stage is state.current.stage, about=track.about(each.stage, state.run.config),
            start=_start(session, state.run, each), took=track.worked(its, now), resumed_step=its[-1].resumed_step if its else 0,
            best_loss=_best_loss(each, files), foreseen=None if said.job_id else forecast(session, state.run, each.stage), now=now,
        )  # fmt: skip


def _best_loss(state: StageState, files: Sequence[Saved]) -> float | None:
    """Of what the stage has saved since it was last begun."""
    begun_after = state.job.begun_after if state.job else 0
    losses = [each.val_loss for each in files if each.stage is state.stage and each.row.attempt > begun_after]
    return min((loss for loss in losses if loss is not None), default=None)


def _start(session: Session, run: Run, state: StageState) -> Start | None:
    path = state.row.init_checkpoint
    if path is None:
        return track.weights(run.config) if state.row.position == 0 else None
    row = checkpoints.at(session, path)
    if row is None:
        return Start(Path(path).name)
    return Start(f"{session.get_one(StageRun, row.stage_id).stage}@{row.step}", f"/checkpoints/{row.id}")
