"""What a trainer wrote, put into rows: each byte once, in the order written, and only while its attempt owns the job.

Knows lines and offsets; opens no file and ends no job: how an attempt ended is told to `app.jobs.finish`.
"""

import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any, Literal

from sqlmodel import Session, col, update

from app import db
from app.checkpoints import service as checkpoints
from app.checkpoints import stored
from app.i18n import _
from app.jobs import progress
from app.jobs.states import move_on
from app.logs import service as logs
from app.metrics import service as metrics
from app.metrics.service import Point
from app.models import ACTIVE, Attempt, Job, JobStatus, StageRun, Worker
from app.samples import service as samples
from panollava import events as trainer
from panollava.errors import BadInput
from panollava.events import CheckpointRemoved, CheckpointSaved, Metric, Note, Progress, Sample, StageEvent

LIVE_POINTS = 2000
"""Most points of one batch that streams are sent. While catching up they are told to read the chart again instead."""
MOST_STEPS = 2**31
QUOTED = 200
"""Bytes of a line that a note about it repeats."""


def events(session: Session, job: Job, attempt: Attempt, lines: bytes, gone: Collection[str] = ()) -> bool:
    """Apply the whole lines that events.jsonl holds at `attempt.event_offset`, and advance it. False, with nothing written, if fenced off.

    Lines that somebody else applied meanwhile are left alone; go on from the row's offset. A line that is no event becomes a note.
    Checkpoints that are `gone` when they are told of can be wanted by nobody.
    """
    if lines[-1:] not in (b"\n", b""):
        raise ValueError("The last line is torn; leave it for later.")
    offset = attempt.event_offset
    if not _owns(session, job, attempt):
        return False
    if _advance(session, attempt, "event_offset", offset, len(lines)):
        _Batch(session, job, attempt, gone).apply(lines, offset)
    return True


def log(session: Session, job: Job, attempt: Attempt, data: bytes) -> bool:
    """Store the bytes that output.log holds at `attempt.log_offset`, and advance it. False and so on as `events`."""
    offset = attempt.log_offset
    if not _owns(session, job, attempt):
        return False
    if _advance(session, attempt, "log_offset", offset, len(data)):
        logs.append(session, job, attempt.number, offset, data)
        db.emit(session, "log", {"job_id": job.id, "attempt": attempt.number, "offset": offset, "size": len(data)}, run_id=job.run_id)
    return True


def _owns(session: Session, job: Job, attempt: Attempt) -> bool:
    """Whether the attempt may write. Nobody can take the job from it before this transaction ends."""
    session.flush()  # a refresh forgets what was set and not yet sent, such as the progress of the same round
    session.refresh(job, with_for_update=True)
    return job.attempt == attempt.number and job.status in ACTIVE


def _advance(session: Session, attempt: Attempt, column: Literal["event_offset", "log_offset"], offset: int, size: int) -> bool:
    """Move the offset, unless it is no longer where the bytes were read."""
    unread = (col(Attempt.id) == attempt.id, getattr(Attempt, column) == offset)
    won = session.exec(update(Attempt).where(*unread).values({column: offset + size}).execution_options(synchronize_session=False)).rowcount == 1
    session.refresh(attempt)
    return won


class _Batch:
    """Lines of one attempt. What comes often is gathered, and written and told once."""

    def __init__(self, session: Session, job: Job, attempt: Attempt, gone: Collection[str]) -> None:
        self._session, self._job, self._attempt, self._gone = session, job, attempt, gone
        self._stage = session.get_one(StageRun, job.stage_id).stage if job.stage_id else None
        self._points: dict[str, list[Point]] = defaultdict(list)
        self._progress: Progress | None = None

    def apply(self, lines: bytes, offset: int) -> None:
        for line in lines.splitlines(keepends=True):
            try:
                self._take(_parse(line))
            except BadInput as error:
                text = _("events.jsonl, byte {offset}: {error}").format(offset=offset, error=error)
                self._tell("note", {"level": "warning", "text": text, "offset": offset})
            offset += len(line)
        self._write_points()
        self._write_progress()

    def _take(self, event: trainer.Event) -> None:
        match event:
            case Metric():
                self._learn_pace(event)
                for name, value in event.values.items():
                    self._points[name].append((event.step, event.t, value))
            case Progress():
                self._progress = event
            case CheckpointSaved():
                row = checkpoints.record(self._session, self._job, self._attempt, event, is_gone=event.path in self._gone)
                self._tell("checkpoint", {"checkpoint_id": row.id, "path": row.path, "kind": row.kind, "step": row.step, "metrics": row.metrics})
            case CheckpointRemoved():
                stored.forget(self._session, self._attempt, event)
            case StageEvent():
                self._begin(event)
            case Sample():
                samples.record(self._session, self._job, self._attempt, event)
                self._tell(event.type, event.model_dump(exclude={"type"}))
            case Note():
                self._tell(event.type, event.model_dump(exclude={"type"}))

    def _begin(self, event: StageEvent) -> None:
        """The trainer is at work. Its other stage events end it, and are judged together with its exit code."""
        if event.suggestion:
            self._attempt.suggestion = dict(event.suggestion)
            self._session.add(self._attempt)
        if event.status not in ("started", "resumed"):
            return
        self._attempt.resumed_step = event.step
        self._session.add(self._attempt)
        if self._job.status is JobStatus.starting:
            move_on(self._session, self._job, JobStatus.running, "trainer", event.status)

    def _learn_pace(self, event: Metric) -> None:
        """Steps over epochs is a whole number but for the last bits, and the same all through an attempt."""
        if event.step > 0 and 0 < event.epoch < math.inf and self._attempt.steps_per_epoch is None:
            self._attempt.steps_per_epoch = round(event.step / event.epoch, 6)
            self._session.add(self._attempt)

    def _write_points(self) -> None:
        if not self._points:
            return
        metrics.append(self._session, self._job, self._attempt.number, self._points)
        count = sum(map(len, self._points.values()))
        _count(self._session, self._job.worker_id, count)
        live = count <= LIVE_POINTS
        self._tell("metric", {"points": self._points if live else {}, "reload": not live})

    def _write_progress(self) -> None:
        if not self._progress:
            return
        heard = {progress.HEARD_AT: db.now(self._session).timestamp()}
        self._job.progress = self._progress.model_dump(exclude={"type"}) | heard
        self._session.add(self._job)
        self._tell("progress", self._job.progress)

    def _tell(self, kind: str, payload: dict[str, Any]) -> None:
        where = {"job_id": self._job.id, "attempt": self._attempt.number, "stage": self._stage}
        db.emit(self._session, kind, where | payload, run_id=self._job.run_id)


def _count(session: Session, worker_id: int | None, points: int) -> None:
    """A worker's own sum only ever grows: rates are read off it, whatever runs are deleted."""
    query = update(Worker).where(col(Worker.id) == worker_id).values(points=Worker.points + points)
    session.exec(query.execution_options(synchronize_session=False))


def _parse(line: bytes) -> trainer.Event:
    """Raises BadInput for a line that is no event, or none that both databases can hold."""
    try:
        event = trainer.decode(line)
    except ValueError as error:
        raise BadInput(_("no event: {line!r}: {error}").format(line=line[:QUOTED], error=error)) from None
    if b"\\u0000" in line or getattr(event, "step", 0) >= MOST_STEPS:
        raise BadInput(_("an event with a NUL character or a step beyond {most:,}: {line!r}").format(line=line[:QUOTED], most=MOST_STEPS))
    return event
