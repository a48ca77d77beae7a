"""Whether the disk that a worker writes to has room for the next job: on a full one, jobs that are taken fail one after the other."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from app import artifacts
from app.checkpoints.service import CONTINUED
from app.formats import size
from app.i18n import _
from app.jobs import service as jobs
from app.models import Checkpoint, Export, Job, JobKind, Run, StageRun
from worker.follow import Sessions
from worker.roster import Member

ANSWERS = 1 << 20
"""Bytes that may be needed for answers, events and log."""
MODELS = ("vision_model", "language_model", "resampler")
"""Settings that decide how large a checkpoint is."""


@dataclass(frozen=True)
class Room:
    """One worker's eye on its disk."""

    sessions: Sessions
    member: Member
    least: int
    """Bytes that are wanted for a job of which nothing is known."""

    def lacks(self) -> str | None:
        """How much is free, and how much the job wants that is next. None while there is no such job, or room for it."""
        with self.sessions.reading() as session:
            job = jobs.best_queued(session, len(self.member.devices))
            return self._lacks(session, job) if job else None

    def suffices(self, session: Session, job: Job) -> bool:
        return self._lacks(session, job) is None

    def _lacks(self, session: Session, job: Job) -> str | None:
        known = NEEDS[job.kind](session, job)
        place = _mounted(artifacts.local(job.directory, self.member.scratch))
        free = shutil.disk_usage(place).free
        if free >= (self.least if known is None else known):
            return None
        return _("only {free} free on {place}; {wanted}").format(free=size(free), place=place, wanted=self._wanted(job, known))

    def _wanted(self, job: Job, known: int | None) -> str:
        if known is None:
            return _("{least} are wanted before a job is begun (PANOLLAVA_LEAST_FREE_GB)").format(least=size(self.least))
        return _("{what} needs about {needed}").format(what=WORDS[job.kind], needed=size(known))


def _checkpoint(session: Session, job: Job) -> int | None:
    """As large as the newest of such a stage with such models, of whatever run; None while there is none."""
    stage, run = session.get_one(StageRun, job.stage_id), session.get_one(Run, job.run_id)
    alike = [Run.config[name].as_string() == run.config.get(name) for name in MODELS]
    query = select(Checkpoint.size).join(StageRun, col(StageRun.id) == Checkpoint.stage_id).join(Run, col(Run.id) == StageRun.run_id)
    query = query.where(StageRun.stage == stage.stage, col(Checkpoint.kind).in_(CONTINUED), *alike)
    return session.exec(query.order_by(col(Checkpoint.id).desc()).limit(1)).first()


def _export(session: Session, job: Job) -> int | None:
    """About as large as its checkpoint."""
    return session.exec(select(Checkpoint.size).where(Checkpoint.path == session.get_one(Export, job.export_id).path)).first()


def _mounted(path: Path) -> Path:
    """Where the file system is mounted that the path is on, or will be."""
    return next(each for each in (path, *path.parents) if each.is_mount())


NEEDS: dict[JobKind, Callable[[Session, Job], int | None]] = {
    JobKind.train: _checkpoint, JobKind.export: _export, JobKind.evaluate: lambda *_: ANSWERS, JobKind.generate: lambda *_: ANSWERS,
}  # fmt: skip
"""Bytes that a job writes at least; None where nothing of its kind has been seen yet."""
WORDS = {JobKind.train: _("a checkpoint"), JobKind.export: _("an export"), JobKind.evaluate: _("an evaluation"), JobKind.generate: _("an answer")}
