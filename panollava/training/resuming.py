"""Going on from a checkpoint of the same stage: only with the settings it was written with, and with everything as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.layouts import layout
from panollava.stages import RECIPES, Stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.position import restore
from panollava.training.watching import Watcher
from panollava.training.weights import describe

MAY_CHANGE = {"epochs", "max_steps", "save_every_steps", "save_every_minutes", "keep_step_checkpoints", "grad_clip", "patience"}
ADDS_UP = {"accumulation"}
"""May change besides where the gradients of micro-batches add up to the whole batch's: not those of an overlap loss."""
VIEWS = ("crop_strategy", "fov", "overlap", "view_count", "pitches", "cube_faces", "view_size")
READING = ("fast_decode", "allow_partial_pano")
OVERLAP_OPTIONS = ("vicreg_inv", "vicreg_var", "vicreg_cov", "densecl_temperature", "expander_width")


def as_it_went(job: StageJob) -> StageJob:
    """The job with the accumulation to which auto_batch had come in the checkpoint it goes on from, said among its warnings."""
    if job.resume is None or not job.config.auto_batch:
        return job
    before, stage, _ = describe(job.resume)
    theirs = before.stages[stage].accumulation
    if stage != job.stage or theirs <= job.settings.accumulation:
        return job
    ours, config = job.settings.accumulation, job.config.with_accumulation(stage, theirs)
    now = f"accumulation {theirs} (micro-batches of {config.stages[stage].micro_batch})"
    return replace(
        job, config=config, warnings=(*job.warnings, f"going on with {now}, to which auto_batch had come; without auto_batch it is {ours}.")
    )


def check_same_settings(job: StageJob, resume: Path) -> None:
    """A resumed training takes its optimizer, schedule and place in the data from the checkpoint, so what those depend on must be as it was."""
    before, stage, _ = describe(resume)
    if stage != job.stage:
        raise BadInput(f"{resume}: a checkpoint of stage {stage} cannot be resumed in stage {job.stage}.")
    theirs, ours = (_kept(config, job.stage) for config in (before, job.config))
    changed = [f"{field} was {theirs[field]} and is {ours[field]}" for field in ours if theirs[field] != ours[field]]
    if changed := [*changed, *filter(None, [other_views(before, job.config)])]:
        raise BadInput(f"{resume}: cannot be resumed with other settings: {', '.join(changed)}. --init-from starts anew from its weights.")


def _kept(config: RunConfig, stage: Stage) -> dict[str, Any]:
    """What a stage's optimizer and losses depend on."""
    may_change = MAY_CHANGE | (set() if config.overlap_loss in config.losses(stage) else ADDS_UP)
    kept = config.stages[stage].model_dump(exclude=may_change) | {"seed": config.seed, "loss": config.loss(stage)}
    kept |= {name: getattr(config, name) for name in READING}
    kept |= {"lora_r": config.lora_r, "lora_dropout": config.lora_dropout} if "lora" in RECIPES[stage].optional else {}
    return kept | ({name: getattr(config, name) for name in OVERLAP_OPTIONS} if config.overlap_loss in config.losses(stage) else {})


def other_views(theirs: RunConfig, ours: RunConfig) -> str | None:
    """The settings in which two configs look at a panorama in different ways; None where they look the same way, whatever they are called."""
    if layout(theirs) == layout(ours) and theirs.view_size == ours.view_size:
        return None
    return ", ".join(
        f"{name} was {getattr(theirs, name)} and is {getattr(ours, name)}" for name in VIEWS if getattr(theirs, name) != getattr(ours, name)
    )


def check_not_past(resume: Path, step: int, steps: int) -> None:
    if step > steps:
        raise BadInput(f"{resume}: has taken {step} steps, and with these settings the stage has {steps}. Raise epochs or max_steps.")


class Restore(Watcher):
    """Optimizer, loss scale and random numbers, once Lightning has made them."""

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        restore(trainer, pl_module, self.checkpoint)
