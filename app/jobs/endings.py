"""How jobs have ended before their time, in words: those that are over, and those that wait for the next attempt since. Reads only."""

from collections.abc import Iterable

from sqlmodel import Session, col, select

from app.jobs import causes
from app.models import Attempt, Job, JobStatus, Transition


def told(session: Session, jobs: Iterable[Job]) -> dict[int, str]:
    """By job id. One query, however many there are."""
    jobs = list(jobs)
    over = {job.id: words for job in jobs if job.status in (JobStatus.failed, JobStatus.stopped) and (words := causes.words(job))}
    return over | _before(session, [job.id for job in jobs if job.status is JobStatus.queued and job.attempt])


def _before(session: Session, job_ids: list[int]) -> dict[int, str]:
    """How the newest attempt of jobs that wait was lost, or failed."""
    if not job_ids:
        return {}
    mine = (Attempt.job_id == Transition.job_id, Attempt.number == Transition.attempt)
    query = select(Transition.job_id, Transition.reason, Attempt.exit_code).join(Attempt, onclause=mine[0] & mine[1])  # type: ignore[arg-type]
    newest = col(Transition.attempt) == select(Job.attempt).where(Job.id == Transition.job_id).scalar_subquery()
    ended = (col(Transition.job_id).in_(job_ids), newest, col(Transition.new).in_((JobStatus.lost, JobStatus.failed)))
    found = session.exec(query.where(*ended).order_by(col(Transition.id)))
    return {job_id: causes.of_move(reason, exit_code) for job_id, reason, exit_code in found}
