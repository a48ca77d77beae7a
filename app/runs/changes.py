"""What people change of a run besides its state: name, priority and note, and whether lists show it."""

from sqlmodel import Session, col, select

from app import db
from app.errors import Conflict
from app.i18n import _
from app.jobs import order
from app.models import ENDED, Job, JobStatus, Run
from app.runs import service as runs


def update(session: Session, run: Run, actor: str, *, name: str | None = None, priority: int | None = None, note: str | None = None) -> None:
    """What is None stays as it is. What waits in the queue takes a new priority with it; files keep the name they have."""
    if priority is not None:
        order.lock(session)  # before any row: whoever moves a job of this run has the lock first and the run's row after it
    changed = {"name": name, "priority": priority, "note": note}
    run.sqlmodel_update({field: value for field, value in changed.items() if value is not None})
    session.add(run)
    if priority is not None:
        for job in session.exec(select(Job).where(Job.run_id == run.id, Job.status == JobStatus.queued)).all():
            order.prioritise(session, job, actor, priority)


def archive(session: Session, run: Run) -> None:
    """Leave it out of lists until something of it is queued again. Again it changes nothing. Raises Conflict while something waits or is at work."""
    runs.hold(session, run)
    refuse_while_open(session, run, _("archived"))
    run.archived_at = run.archived_at or db.now(session)
    session.add(run)


def unarchive(session: Session, run: Run) -> None:
    """Again it changes nothing."""
    run.archived_at = None
    session.add(run)


def open_job(session: Session, run: Run) -> Job | None:
    """One of the run's that waits or is at work: of a stage, an evaluation or an export."""
    return session.exec(select(Job).where(Job.run_id == run.id, col(Job.status).not_in(ENDED)).limit(1)).first()


def refuse_while_open(session: Session, run: Run, what: str) -> None:
    """Raises Conflict."""
    if job := open_job(session, run):
        text = _("Run {id} has a job that is {status} ({kind}); stop it before the run is {what}.")
        raise Conflict(text.format(id=run.id, status=job.status, kind=job.kind, what=what))
