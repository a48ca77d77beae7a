"""Example answers as rows: recorded as the trainer tells of them, read without those that a resumed attempt gave anew."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import exists
from sqlmodel import Session, col, select

from app import db
from app.errors import NotFound
from app.i18n import _
from app.models import Attempt, Job, Run, Sample, StageRun
from app.paths import allowed
from app.settings import Settings
from panollava import events as trainer
from panollava.config import RunConfig, validated
from panollava.data.table import resolve_image
from panollava.stages import Stage


def record(session: Session, job: Job, attempt: Attempt, event: trainer.Sample) -> None:
    """Keep what a trainer told. Only trainings have examples: of another job it is told and not kept."""
    if job.run_id is None or job.stage_id is None:
        return
    told = event.model_dump(include={"step", "url", "query", "references", "prediction"})
    session.add(Sample(run_id=job.run_id, stage_id=job.stage_id, job_id=job.id, attempt=attempt.number, at=db.now(session), **told))


def page(
    session: Session, run_id: int, stage: Stage | None = None, cursor: int | None = None, limit: int = 50
) -> Sequence[tuple[Sample, Stage]]:  # fmt: skip
    """The answers of a run with their stages, newest first. Those behind the step from which a newer attempt went on do not count any more."""
    newer = (col(Attempt.job_id) == Sample.job_id, col(Attempt.number) > Sample.attempt, col(Attempt.resumed_step) < Sample.step)
    query = select(Sample, StageRun.stage).join(StageRun, col(StageRun.id) == Sample.stage_id).where(Sample.run_id == run_id, ~exists().where(*newer))
    if stage is not None:
        query = query.where(StageRun.stage == stage)
    if cursor is not None:
        query = query.where(col(Sample.id) < cursor)
    return [(row, Stage(of)) for row, of in session.exec(query.order_by(col(Sample.id).desc()).limit(limit))]


def path_of(session: Session, run: Run, url: str, settings: Settings) -> Path:
    """The file behind a sample's url.

    Raises NotFound for a url that none of the run's samples is about, BadInput for a file that is not there, Forbidden for one outside the
    directories open to users.
    """
    if session.exec(select(Sample.id).where(Sample.run_id == run.id, Sample.url == url).limit(1)).first() is None:
        raise NotFound(_("url: no sample of run {id} is about {url!r}.").format(id=run.id, url=url))
    config = validated(RunConfig, run.config)
    root = Path(config.image_root) if config.image_root else None
    return allowed(settings, "url", str(resolve_image(url, config.csv("valid"), root)))
