"""What a stage that ends before its time can go on from, in words: they are part of how every stop ended."""

from sqlmodel import Session

from app.checkpoints import service as checkpoints
from app.i18n import _
from app.models import Job, JobKind


def told(session: Session, job: Job, detail: str | None, between: str) -> str | None:
    """What is known of the end, and what was saved."""
    return between.join(filter(None, (detail, words(session, job)))) or None


def words(session: Session, job: Job) -> str | None:
    """By the checkpoints that the database has, which `resume` would take too; None for a job that writes none."""
    if job.kind is not JobKind.train:
        return None
    if (checkpoint := checkpoints.last_good(session, job)) is None:
        return _("Nothing was saved: it would begin at its start.")
    return _("Saved at step {step}: it goes on from there.").format(step=checkpoint.step)
