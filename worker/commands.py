"""What the trainer is told for each kind of job: its `job.json` and its command line. Starts nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from app import artifacts
from app.checkpoints.exports import MODEL
from app.models import Attempt, Evaluation, Export, Job, JobKind, Run, StageRun
from panollava import rundir
from panollava.config import EvaluateConfig, RunConfig, validated
from panollava.metrics.report import GROWING_FILE
from worker.scratch import CACHE

CONFIG_FILE = "job.json"


@dataclass(frozen=True)
class Place:
    """What an attempt's rows name, as paths of this host."""

    name: str
    """Of the attempt's directory."""
    scratch: Path | None

    @property
    def directory(self) -> Path:
        return artifacts.local(self.name, self.scratch)

    @property
    def settings(self) -> dict[str, str]:
        """Of hosts that share no directory each has a cache of its own."""
        return {"cache_dir": str(self.scratch / CACHE)} if self.scratch and artifacts.is_remote(self.name) else {}

    def local(self, name: str | None) -> str | None:
        return name and str(artifacts.local(name, self.scratch))


def prepare(session: Session, job: Job, attempt: Attempt, scratch: Path | None = None) -> list[str]:
    """The trainer's arguments; settings are written to the attempt's job.json. Raises KeyError for a kind of job that no trainer does.

    What a store has of the job's files has been brought to `scratch` before.
    """
    return ARGUMENTS[job.kind](session, job, Place(attempt.directory, scratch))


def _train(session: Session, job: Job, place: Place) -> list[str]:
    stage, run = session.get_one(StageRun, job.stage_id), session.get_one(Run, job.run_id)
    # An attempt that resumes has its weights from the checkpoint it continues.
    resume, start = place.local(job.resume_from), place.local(None if job.resume_from else stage.init_checkpoint)
    config = validated(RunConfig, run.config).overridden(stage.stage, stage.overrides or {})
    config = config.model_copy(update={"stage": (stage.stage,), "init_from": start} | place.settings)
    written = _write(place, config)
    arguments = ["train", "--config", written, "--stage", stage.stage, "--stage-dir", str(place.directory), "--log-dir", ""]
    if resume:
        return [*arguments, "--resume", resume, "--fall-back"]  # the rows say how long a file is, the trainer finds out whether it is whole
    return [*arguments, "--init-from", start, "--open-gate"] if start else arguments  # what is queued is past its gate


def _evaluate(session: Session, job: Job, place: Place) -> list[str]:
    config = validated(EvaluateConfig, session.get_one(Evaluation, job.evaluation_id).config)
    written = _write(place, config.model_copy(update={"checkpoint": place.local(config.checkpoint)} | place.settings))
    arguments = ["evaluate", "--config", written, "--output-dir", str(place.directory)]
    # Answers of the newest attempt that left some: it may have begun with those of the one before.
    left = sorted(place.directory.parent.glob(f"*/{GROWING_FILE}"), key=lambda file: file.stat().st_mtime)
    return [*arguments, "--resume", str(left[-1].parent)] if left else arguments


def _export(session: Session, job: Job, place: Place) -> list[str]:
    checkpoint = artifacts.local(session.get_one(Export, job.export_id).path, place.scratch)
    return ["export", str(checkpoint), str(place.directory / MODEL), "--job-dir", str(place.directory)]


def _write(place: Place, config: RunConfig | EvaluateConfig) -> str:
    file = place.directory / CONFIG_FILE
    rundir.write_whole(file, config.model_dump_json(indent=2))
    return str(file)


ARGUMENTS: dict[JobKind, Callable[[Session, Job, Place], list[str]]] = {
    JobKind.train: _train, JobKind.evaluate: _evaluate, JobKind.export: _export,
}  # fmt: skip
