"""The end of an attempt and what it sets in motion: the next stage of a run, the figures of an evaluation, an export that can be used."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlmodel import Session

from app import db
from app.checkpoints import exports, retention
from app.checkpoints import service as checkpoints
from app.evaluations import service as evaluations
from app.jobs import saved
from app.jobs import service as jobs
from app.jobs.states import MOVES, move_on
from app.models import ACTIVE, Attempt, Job, JobKind, JobStatus
from app.runs import service as runs
from panollava.errors import BadInput

BETWEEN = {JobStatus.succeeded: JobStatus.running, JobStatus.stopped: JobStatus.stopping}
"""The state on the way to an end that cannot be reached in one move: a trainer that was stopped from outside, or that was too quick."""


def finish(
    session: Session, job_id: int, attempt: int, status: JobStatus, *,
    actor: str, reason: str, detail: str | None = None, best: str | None = None, exit_code: int | None = None,
    files: Path | None = None,
) -> bool:  # fmt: skip
    """The attempt has ended as `status`: succeeded, failed, stopped or lost. False if it was fenced off; then nothing is written.

    `best` is the best checkpoint of a stage, relative to the attempt's directory. Put the rest of the attempt's files into the database
    before this; `files` is where they lie on this host, if not where the row says. A success that left no result behind is a failure, and
    says so. A stop says what was saved. The caller commits, then rings.
    """
    job = session.get(Job, job_id, populate_existing=True, with_for_update=True)
    if job is None or job.attempt != attempt or job.status not in ACTIVE:
        return False
    ended = jobs.attempt_of(session, job)
    ended.exit_code, ended.ended_at = exit_code, db.now(session)
    session.add(ended)
    detail = detail and detail.replace("\0", "\ufffd")  # PostgreSQL keeps no NUL
    if status is JobStatus.lost:
        return jobs.lose(session, job, actor, reason, detail)
    follow: Callable[[], None] | None = None
    if status is JobStatus.succeeded:
        try:
            follow = _prepare(session, job, ended, best, files or Path(ended.directory), actor)
        except BadInput as error:
            status, reason, detail = JobStatus.failed, "no_result", str(error)
    if status is JobStatus.stopped:
        detail = saved.told(session, job, detail, " ")
    elif status is JobStatus.failed and job.status is JobStatus.stopping:
        detail = saved.told(session, job, detail, "\n")
    if status not in MOVES[job.status]:
        move_on(session, job, BETWEEN[status], actor, reason)
    move_on(session, job, status, actor, reason, detail=detail)
    if follow:
        follow()
        retention.after_stage(session, job)
    return True


def _prepare(session: Session, job: Job, ended: Attempt, best: str | None, files: Path, actor: str) -> Callable[[], None]:
    """What a success leads to, once it is written. Raises BadInput when its result is missing or torn."""
    if job.kind is JobKind.train:
        return partial(runs.finish_stage, session, job, checkpoints.best(session, job, ended, best), actor)
    if job.kind is JobKind.export:
        exports.check_made(session, job, files)
        return partial(exports.finish, session, job, ended.directory)
    return partial(evaluations.finish, session, job, evaluations.read_metrics(files), ended.directory)
