"""What the trainer is told for each kind of job: its `job.json` and its command line. Starts nothing."""

from collections.abc import Callable
from pathlib import Path

from sqlmodel import Session

from app.checkpoints.exports import MODEL
from app.models import Attempt, Evaluation, Export, Job, JobKind, Run, StageRun
from panollava import rundir
from panollava.config import EvaluateConfig, RunConfig
from panollava.metrics.report import GROWING_FILE

CONFIG_FILE = "job.json"


def prepare(session: Session, job: Job, attempt: Attempt) -> list[str]:
    """The trainer's arguments; settings are written to the attempt's job.json. Raises KeyError for a kind of job that no trainer does."""
    return ARGUMENTS[job.kind](session, job, Path(attempt.directory))


def _train(session: Session, job: Job, directory: Path) -> list[str]:
    stage, run = session.get_one(StageRun, job.stage_id), session.get_one(Run, job.run_id)
    # An attempt that resumes has its weights from the checkpoint it continues.
    start = None if job.resume_from else stage.init_checkpoint
    config = RunConfig.model_validate(run.config).model_copy(update={"stage": (stage.stage,), "init_from": start})
    rundir.write_whole(directory / CONFIG_FILE, config.model_dump_json(indent=2))
    arguments = ["train", "--config", str(directory / CONFIG_FILE), "--stage", stage.stage, "--stage-dir", str(directory), "--log-dir", ""]
    for flag, checkpoint in (("--resume", job.resume_from), ("--init-from", start)):
        arguments += [flag, checkpoint] if checkpoint else []
    # The rows say how long a file is, the trainer finds out whether it is whole.
    return [*arguments, "--fall-back"] if job.resume_from else arguments


def _evaluate(session: Session, job: Job, directory: Path) -> list[str]:
    config = EvaluateConfig.model_validate(session.get_one(Evaluation, job.evaluation_id).config)
    rundir.write_whole(directory / CONFIG_FILE, config.model_dump_json(indent=2))
    arguments = ["evaluate", "--config", str(directory / CONFIG_FILE), "--output-dir", str(directory)]
    # Answers of the newest attempt that left some: it may have begun with those of the one before.
    left = sorted(directory.parent.glob(f"*/{GROWING_FILE}"), key=lambda file: file.stat().st_mtime)
    return [*arguments, "--resume", str(left[-1].parent)] if left else arguments


def _export(session: Session, job: Job, directory: Path) -> list[str]:
    return ["export", session.get_one(Export, job.export_id).path, str(directory / MODEL), "--job-dir", str(directory)]


ARGUMENTS: dict[JobKind, Callable[[Session, Job, Path], list[str]]] = {
    JobKind.train: _train, JobKind.evaluate: _evaluate, JobKind.export: _export,
}  # fmt: skip
