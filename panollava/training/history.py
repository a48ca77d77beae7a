"""What weights have been through: the stages behind a checkpoint, each with the steps that it has really taken."""

import json
from pathlib import Path

from panollava import rundir
from panollava.rundir import Trained
from panollava.training.job import StageJob
from panollava.training.weights import metadata

HISTORY = "history"
"""Entry of a complete file's metadata."""


def before(job: StageJob) -> tuple[Trained, ...]:
    """The stages before this one, if any; what a resumed stage has done of itself so far is not before it."""
    if job.resume:
        return history(job.resume)[:-1]
    return history(job.init_from) if job.init_from else ()


def history(checkpoint: Path) -> tuple[Trained, ...]:
    """In the order they were trained; empty for a file from before this was kept. Raises BadInput for a file that is no checkpoint."""
    if checkpoint.suffix != ".safetensors":
        return rundir.read_note(checkpoint).history
    return tuple(Trained.model_validate(each) for each in json.loads(metadata(checkpoint).get(HISTORY, "[]")))


def history_entry(stages: tuple[Trained, ...]) -> dict[str, str]:
    return {HISTORY: json.dumps([each.model_dump(mode="json") for each in stages])}
