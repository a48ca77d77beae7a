"""What the trainer is told for each kind of job: its `job.json` and its command line. Starts nothing."""

from collections.abc import Callable
from pathlib import Path

from sqlmodel import Session

from app import artifacts
from app.models import Attempt, Evaluation, Job, JobKind, Run, StageRun
from panollava import rundir
from panollava.config import EvaluateConfig, RunConfig
from panollava.metrics.report import GROWING_FILE
from worker.scratch import CACHE

CONFIG_FILE = "job.json"


Local = Callable[[str | None], str | None]
"""The path on this host of what a row names."""


def prepare(session: Session, job: Job, attempt: Attempt, scratch: Path | None = None) -> list[str]:
    """Write the attempt's job.json; the trainer's arguments. Raises KeyError for a kind of job that no trainer does.

    What a store has of the job's files has been brought to `scratch` before.
    """

    def local(name: str | None) -> str | None:
        return name and str(artifacts.local(name, scratch))

    own_cache = {"cache_dir": str(scratch / CACHE)} if scratch and artifacts.is_remote(attempt.directory) else {}
    return ARGUMENTS[job.kind](session, job, artifacts.local(attempt.directory, scratch), local, own_cache)


def _train(session: Session, job: Job, directory: Path, local: Local, more: dict[str, str]) -> list[str]:
    stage, run = session.get_one(StageRun, job.stage_id), session.get_one(Run, job.run_id)
    # An attempt that resumes has its weights from the checkpoint it continues.
    resume, start = local(job.resume_from), local(None if job.resume_from else stage.init_checkpoint)
    config = RunConfig.model_validate(run.config).model_copy(update={"stage": (stage.stage,), "init_from": start} | more)
    rundir.write_whole(directory / CONFIG_FILE, config.model_dump_json(indent=2))
    arguments = ["train", "--config", str(directory / CONFIG_FILE), "--stage", stage.stage, "--stage-dir", str(directory), "--log-dir", ""]
    for flag, checkpoint in (("--resume", resume), ("--init-from", start)):
        arguments += [flag, checkpoint] if checkpoint else []
    # The rows say how long a file is, the trainer finds out whether it is whole.
    return [*arguments, "--fall-back"] if resume else arguments


def _evaluate(session: Session, job: Job, directory: Path, local: Local, more: dict[str, str]) -> list[str]:
    config = EvaluateConfig.model_validate(session.get_one(Evaluation, job.evaluation_id).config)
    config = config.model_copy(update={"checkpoint": local(config.checkpoint)} | more)
    rundir.write_whole(directory / CONFIG_FILE, config.model_dump_json(indent=2))
    arguments = ["evaluate", "--config", str(directory / CONFIG_FILE), "--output-dir", str(directory)]
    # Answers of the newest attempt that left some: it may have begun with those of the one before.
    left = sorted(directory.parent.glob(f"*/{GROWING_FILE}"), key=lambda file: file.stat().st_mtime)
    return [*arguments, "--resume", str(left[-1].parent)] if left else arguments


ARGUMENTS: dict[JobKind, Callable[[Session, Job, Path, Local, dict[str, str]], list[str]]] = {JobKind.train: _train, JobKind.evaluate: _evaluate}
