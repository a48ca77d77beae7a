"""A run as lists show it: how its stages stand, how far the one at work is, its best val_loss and the time it took. Reads only."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select

from app import db
from app.formats import duration
from app.i18n import _
from app.jobs import causes, progress, states, waiting
from app.models import ACTIVE, Attempt, Checkpoint, Job, JobKind, JobStatus, Run
from app.runs import service as runs
from app.runs.service import GATED, RunState, StageState
from app.runs.table.lists import Shown
from panollava.stages import Stage

LETTERS = {Stage.vision: _("V"), Stage.resampler: _("R"), Stage.finetune: _("F")}
NAMES = {Stage.vision: _("Vision"), Stage.resampler: _("Resampler"), Stage.finetune: _("Finetune")}
WORDS = {
    Shown.waiting: _("waiting"), Shown.queued: _("queued"), Shown.starting: _("starting"), Shown.running: _("running"), Shown.stopping: _("stopping"),
    Shown.succeeded: _("succeeded"), Shown.failed: _("failed"), Shown.stopped: _("stopped"), Shown.lost: _("without a heartbeat"),
    Shown.gated: _("gated"),
}  # fmt: skip
AT_WORK = {Shown(status) for status in ACTIVE}


@dataclass(frozen=True)
class Best:
    """The lowest val_loss of the furthest stage that has one; that of another stage is another loss."""

    stage: Stage
    val_loss: float


@dataclass(frozen=True)
class Step:
    """A stage on the small track."""

    stage: Stage
    shown: Shown
    share: float
    """How much of it is done, 0 to 1."""

    @property
    def letter(self) -> str:
        return LETTERS[self.stage]

    @property
    def words(self) -> str:
        """`Finetune running 45 %`"""
        share = _(" {percent} %").format(percent=int(100 * self.share)) if self.shown in AT_WORK else ""
        return f"{NAMES[self.stage]} {WORDS[self.shown]}{share}"


@dataclass(frozen=True)
class RunRow:
    """One run of a list. `took` is the time at work, all attempts together; None before the first."""

    state: RunState
    steps: Sequence[Step]
    waiting_because: str | None
    best: Best | None
    took: timedelta | None
    progress: str | None
    """`62 %, 58 min left`, as far as the trainer has said; None when nobody is at it."""

    @property
    def run(self) -> Run:
        return self.state.run

    @property
    def job(self) -> Job | None:
        """The newest job of the current stage."""
        return self.state.current.job

    @property
    def step(self) -> Step:
        """The current stage."""
        return next(step for step in self.steps if step.stage is self.state.current.stage)

    @property
    def shown(self) -> Shown:
        return self.step.shown

    @property
    def is_at_work(self) -> bool:
        return self.state.status in ACTIVE

    @property
    def ended_because(self) -> str | None:
        """Why it failed, in a line."""
        return causes.in_a_line(self.job) if self.job and self.shown is Shown.failed else None

    @property
    def words(self) -> str:
        """The track, for who cannot see it."""
        return ", ".join(step.words for step in self.steps)


def of(session: Session, listed: Sequence[Run]) -> list[RunRow]:
    """In the order given. As many queries for fifty as for one."""
    found, now = runs.states(session, listed), db.now(session)
    reasons = waiting.reasons(session, [each.current.job for each in found.values() if each.current.job])
    best, took = _best(session, found.values()), _took(session, found)
    return [_row(found[run.id], reasons, best.get(run.id), took.get(run.id), now) for run in listed]


def _row(state: RunState, reasons: dict[int, str], best: Best | None, took: timedelta | None, now: datetime) -> RunRow:
    job = state.current.job
    steps, waits = [_step(stage, now) for stage in state.stages], state.current.row.gated_because or (reasons.get(job.id) if job else None)
    said = in_words(job.progress, states.is_lost(job, now), now) if job and job.status in ACTIVE else None
    return RunRow(state, steps, waits, best, took, said)


def _step(state: StageState, now: datetime) -> Step:
    job = state.job
    if state.status == GATED:
        return Step(state.stage, Shown.gated, 0.0)
    if job is None:
        return Step(state.stage, Shown.waiting, 0.0)
    shown = Shown.lost if states.is_lost(job, now) else Shown(job.status)
    return Step(state.stage, shown, 1.0 if job.status is JobStatus.succeeded else progress.share(job.progress))


def in_words(said: progress.Said, is_lost: bool, now: datetime) -> str | None:
    """`62 %, 58 min left`; None before the trainer has said anything. When nobody is at it, nobody knows what is left."""
    if not said.get("total"):
        return None
    if progress.is_reading(said):
        return _("{done} of {total} images read").format(done=f"{said['done']:,}", total=f"{said['total']:,}")
    percent, left = int(100 * progress.share(said)), progress.left(said, now)
    if is_lost or not left:
        return _("{percent} %").format(percent=percent)
    return _("{percent} %, {time} left").format(percent=percent, time=duration(left))


def _best(session: Session, found: Iterable[RunState]) -> dict[int, Best]:
    """By run id."""
    stages = [stage.row for each in found for stage in each.stages]
    lowest = select(Checkpoint.stage_id, func.min(Checkpoint.val_loss)).join(Job, col(Job.id) == Checkpoint.job_id)
    lowest = lowest.where(col(Checkpoint.stage_id).in_([stage.id for stage in stages]), Checkpoint.attempt > Job.begun_after)
    losses = {stage: loss for stage, loss in session.exec(lowest.group_by(col(Checkpoint.stage_id))) if loss is not None}
    return {stage.run_id: Best(stage.stage, losses[stage.id]) for stage in stages if stage.id in losses}  # in training order: the last one stays


def _took(session: Session, run_ids: Iterable[int]) -> dict[int, timedelta]:
    """By run id. An attempt that has not ended reaches to its last heartbeat."""
    mine = (col(Job.run_id).in_(run_ids), Job.kind == JobKind.train)
    query = select(Job.run_id, Attempt.started_at, func.coalesce(Attempt.ended_at, Job.heartbeat_at)).join(Attempt, col(Attempt.job_id) == Job.id)
    took: dict[int, timedelta] = defaultdict(timedelta)
    for run_id, begun, ended in session.exec(query.where(*mine)):
        if run_id is not None and ended is not None:
            took[run_id] += ended - begun
    return dict(took)
