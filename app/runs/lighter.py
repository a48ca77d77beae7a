"""The settings with which stages are tried again since memory ran out: what they change, which attempt had which, what a config is with them."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from app.models import Attempt, Job, JobStatus, Run, StageRun, Transition
from panollava.causes import Cause
from panollava.config import RunConfig, StageConfig
from panollava.shortage import Shortage, lighter
from panollava.stages import Stage

REASON = "lighter"
"""Why such an attempt was queued."""


@dataclass(frozen=True)
class Changed:
    """A setting, what the run was asked for, and what it is instead."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name} {_text(self.old)} → {_text(self.new)}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def changes(config: Mapping[str, Any], stage: Stage, settings: Mapping[str, Any] | None) -> list[Changed]:
    """What settings, by their names on the command line, change in a run's config."""
    section = config["stages"][stage]
    return [
        Changed(name, (section if name in StageConfig.model_fields else config).get(name), value) for name, value in (settings or {}).items()
    ]  # fmt: skip


def in_words(config: Mapping[str, Any], stage: Stage, settings: Mapping[str, Any] | None) -> str:
    """`batch_size 24 → 12, accumulation 1 → 2`; empty where nothing is changed."""
    return ", ".join(map(str, changes(config, stage, settings)))


def effective(config: Mapping[str, Any], stages: Iterable[StageRun]) -> dict[str, Any]:
    """A run's config as its stages are trained now. What stages have no setting of their own for is the whole run's: it needs less for all."""
    made = deepcopy(dict(config))
    for row in stages:
        for name, value in (row.overrides or {}).items():
            (made["stages"][row.stage] if name in StageConfig.model_fields else made)[name] = value
    return made


def of_run(session: Session, run: Run) -> dict[str, Any]:
    return effective(run.config, session.exec(select(StageRun).where(StageRun.run_id == run.id)))


def told(session: Session, run: Run) -> str:
    """`resampler: accumulation 1 → 2`; empty for a run that is trained as it was asked for."""
    rows = session.exec(select(StageRun).where(StageRun.run_id == run.id).order_by(col(StageRun.position)))
    return "; ".join(f"{row.stage}: {words}" for row in rows if (words := in_words(run.config, row.stage, row.overrides)))


def in_force(session: Session, attempts: Iterable[Attempt]) -> dict[int, dict[str, Any]]:
    """By attempt id, the settings with which each of a run's attempts, oldest first, was trained in the place of the run's."""
    attempts = list(attempts)
    asked = select(Transition.job_id, Transition.attempt).where(Transition.reason == REASON)
    again = set(session.exec(asked.where(col(Transition.job_id).in_({each.job_id for each in attempts}))).all())
    found, now = {}, dict[int, dict[str, Any]]()
    for each in attempts:
        found[each.id] = now.get(each.job_id, {})
        if (each.job_id, each.number) in again:
            now[each.job_id] = found[each.id] | lighter(each.suggestion)
    return found


def suggested(run: Run, stage: StageRun, job: Job | None, attempt: Attempt | None) -> dict[str, Any]:
    """The settings that need less memory, of a stage whose newest attempt has failed for want of it; empty where none are known."""
    if job is None or attempt is None or job.status is not JobStatus.failed:
        return {}
    return lighter(attempt.suggestion or _for_killed(run, stage, job, attempt))


def newest(session: Session, jobs: Iterable[Job]) -> dict[int, Attempt]:
    """The last attempt of each job that has had one, by job id. One query, however many there are."""
    query = select(Attempt).join(Job, onclause=(col(Job.id) == Attempt.job_id) & (col(Job.attempt) == Attempt.number))
    return {each.job_id: each for each in session.exec(query.where(col(Job.id).in_([job.id for job in jobs])))}


def _for_killed(run: Run, stage: StageRun, job: Job, attempt: Attempt) -> dict[str, Any]:
    """Of a trainer that the kernel killed, so that it could not say so itself."""
    if job.reason != Cause.out_of_host_memory:
        return {}
    try:
        config = RunConfig.model_validate(run.config).overridden(stage.stage, stage.overrides or {})
    except ValidationError:  # of another version: it cannot be started with less either, and says so then
        return {}
    has_device = bool(attempt.devices) and attempt.devices != ["cpu"]
    return {change.name: change.value for change in Shortage(config, stage.stage, "step", elsewhere=has_device).changes()[:1]}
