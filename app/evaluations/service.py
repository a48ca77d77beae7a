"""Evaluations of checkpoints: asked for, finished, set side by side. Their status is their job's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sqlmodel import Session, col, select

from app import artifacts, db
from app.artifacts import ReadNote
from app.checkpoints import service as checkpoints
from app.errors import Conflict, Invalid, NotFound
from app.evaluations.samples import Compared
from app.i18n import _
from app.jobs.states import enqueue
from app.models import Checkpoint, Evaluation, Job, JobKind, StageRun
from app.paths import allowed, allowed_artifact, check_images, check_remote, shared_cache
from app.requests import digest, requested
from app.settings import Settings
from panollava.config import EvaluateConfig, validated
from panollava.data.table import read_table
from panollava.errors import BadInput
from panollava.metrics.captions import Condition, Prediction
from panollava.metrics.compare import Comparison
from panollava.metrics.report import Report
from panollava.stages import Stage

PREDICTIONS, METRICS = "predictions.jsonl", "metrics.json"


def create(
    session: Session, config: EvaluateConfig, settings: Settings, actor: str,
    name: str | None = None, devices: int = 1, priority: int = 0, request_key: str | None = None,
    read_note: ReadNote = artifacts.read_note,
) -> Evaluation:  # fmt: skip
    """An evaluation and its job, or nothing at all. The caller commits, then rings. `request_key` and `read_note` are as for `runs.create`.

    Raises Forbidden or BadInput for a checkpoint or a table that cannot be used, and Conflict for a key that was used otherwise.
    """
    asked = digest(config.model_dump(), name, devices, priority)
    if request_key and (before := requested(session, Evaluation, request_key, asked)):
        return before
    config = _resolve(config, settings, read_note)
    if checkpoint := checkpoints.at(session, config.checkpoint):
        checkpoint = checkpoints.hold(session, checkpoint)
        config = config.model_copy(update={"checkpoint": checkpoint.path})
    evaluation = Evaluation(
        name=name or _name(session, config, checkpoint),
        run_id=checkpoint.run_id if checkpoint else None, checkpoint_id=checkpoint.id if checkpoint else None,
        config=config.model_dump(mode="json"), request_key=request_key, request_hash=asked, created_at=db.now(session), created_by=actor,
    )  # fmt: skip
    session.add(evaluation)
    session.flush()
    directory = artifacts.free(artifacts.join(settings.artifacts, "evaluations", f"eval-{evaluation.id}"))
    job = Job(
        kind=JobKind.evaluate, run_id=evaluation.run_id, evaluation_id=evaluation.id, devices=devices, priority=priority, directory=directory
    )  # fmt: skip
    enqueue(session, job, actor, "submitted")
    return evaluation


def _resolve(config: EvaluateConfig, settings: Settings, read_note: ReadNote) -> EvaluateConfig:
    """Absolute, allowed paths to files that were looked at. Where the results go is the job's business."""
    paths = {"checkpoint": allowed_artifact(settings, "checkpoint", config.checkpoint)}
    named = {field: getattr(config, field) for field in ("csv", "image_root")}
    paths |= {field: str(allowed(settings, field, value)) for field, value in named.items() if value}
    check_remote(settings, config.allow_remote)
    config = config.model_copy(update=paths | {"output_dir": None, "resume": None} | shared_cache(settings))
    if read_note(config.checkpoint).stage == Stage.vision:
        raise Invalid(
            _("checkpoint: {path} is of stage vision, which learns no answers; evaluate one of stage resampler or finetune.").format(
                path=config.checkpoint
            )
        )
    check_images(settings, read_table(Path(config.csv)), Path(config.csv), config.image_root)
    return config


def _name(session: Session, config: EvaluateConfig, checkpoint: Checkpoint | None) -> str:
    """`finetune@80 of run 7 on test`, or `model_final.safetensors on test` for a checkpoint of no run."""
    name = Path(config.checkpoint).name
    if checkpoint:
        stage = session.get_one(StageRun, checkpoint.stage_id).stage
        name = _("{stage}@{step} of run {run}").format(stage=stage, step=checkpoint.step, run=checkpoint.run_id)
    return _("{checkpoint} on {table}").format(checkpoint=name, table=Path(config.csv).stem)


def get(session: Session, evaluation_id: int) -> Evaluation:
    """Raises NotFound."""
    if (evaluation := session.get(Evaluation, evaluation_id)) is None:
        raise NotFound(_("There is no evaluation {id}.").format(id=evaluation_id))
    return evaluation


def page(session: Session, run_id: int | None = None, cursor: int | None = None, limit: int = 50) -> Sequence[Evaluation]:
    """Newest first, of one run's checkpoints or of all, older than the one that `cursor` names."""
    query = select(Evaluation).order_by(col(Evaluation.id).desc()).limit(limit)
    if run_id is not None:
        query = query.where(Evaluation.run_id == run_id)
    return session.exec(query if cursor is None else query.where(Evaluation.id < cursor)).all()


def jobs_of(session: Session, evaluations: Sequence[Evaluation]) -> dict[int, Job]:
    """Each evaluation's job by the evaluation's id. One query for a page of any length."""
    query = select(Job).where(col(Job.evaluation_id).in_([each.id for each in evaluations])).order_by(col(Job.id))
    return {job.evaluation_id: job for job in session.exec(query) if job.evaluation_id}


def read_metrics(directory: Path) -> dict[str, Any]:
    """What an attempt that succeeded left behind. Raises BadInput when it left nothing that can be read."""
    try:
        metrics = json.loads((directory / METRICS).read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(_("The evaluation left no {name}: {error}.").format(name=METRICS, error=error)) from None
    if not isinstance(metrics, dict):
        raise BadInput(_("The evaluation left a {name} that holds no figures by name.").format(name=METRICS))
    return metrics


def finish(session: Session, job: Job, metrics: dict[str, Any], directory: str) -> None:
    """Keep the figures of an evaluation that succeeded, and where its predictions lie."""
    evaluation = session.get_one(Evaluation, job.evaluation_id)
    evaluation.metrics, evaluation.directory = metrics, directory
    session.add(evaluation)
    db.emit(session, "evaluation", {"evaluation_id": evaluation.id, "job_id": job.id, "status": job.status}, run_id=evaluation.run_id)


def predictions(
    evaluation: Evaluation, cursor: int | None, limit: int, condition: Condition | None = None, scratch: Path | None = None
) -> tuple[list[Prediction], int | None]:  # fmt: skip
    """The next answers, and where the ones after them begin; a cursor is a place in predictions.jsonl.

    Raises Conflict before there are any, NotFound when they were removed since, Invalid for a cursor that is none of ours.
    """
    answers: list[Prediction] = []
    with _opened(predictions_path(evaluation, scratch)) as file:
        if cursor and (file.seek(cursor - 1), file.read(1)) != (cursor - 1, b"\n"):
            raise Invalid(_("cursor: {cursor} is not the `next_cursor` of a page.").format(cursor=cursor))
        while len(answers) < limit:
            if not (line := file.readline()):
                return answers, None
            answer = Prediction.model_validate_json(line)
            if condition in (None, answer.condition):
                answers.append(answer)
        return answers, file.tell()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(_("{path} is not there any more.").format(path=path)) from None


def compare(session: Session, ids: Sequence[int], base: int | None = None, scratch: Path | None = None) -> Comparison:
    """Evaluations side by side, their differences to evaluation `base`, or to the first.

    Raises NotFound; Conflict for one that has not succeeded; BadInput for those that answered other questions.
    """
    compared = [get(session, each) for each in ids]
    if base is not None and base not in ids:
        raise Invalid(_("base: evaluation {id} is not among those compared.").format(id=base))
    comparison = side_by_side(compared, 0 if base is None else ids.index(base), scratch).comparison()
    return comparison.with_controls([report_of(each) for each in compared])


def side_by_side(evaluations: Sequence[Evaluation], base: int, scratch: Path | None = None) -> Compared:
    """What is needed to compare them with the one at `base`. Raises Conflict for one that has not succeeded."""
    paths = tuple((each.name, predictions_path(each, scratch)) for each in evaluations)
    report = report_of(evaluations[base]) if evaluations else None
    return Compared(paths, base, report.figures if report else {})


def report_of(evaluation: Evaluation) -> Report | None:
    """Its figures; None until it has succeeded. Raises BadInput for figures that are none of ours."""
    return None if evaluation.metrics is None else validated(Report, evaluation.metrics)


def predictions_path(evaluation: Evaluation, scratch: Path | None = None) -> Path:
    """Where its answers lie on this host; those in a store are copied to `scratch` first. Raises Conflict before there are any."""
    if evaluation.directory is None:
        raise Conflict(_("Evaluation {id} has no predictions yet.").format(id=evaluation.id))
    return artifacts.fetch(artifacts.join(evaluation.directory, PREDICTIONS), scratch)
