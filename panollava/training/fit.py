"""Train one stage: check, load, train, and leave a directory that explains itself.

Every training passes through `train_stage`, from a terminal and from a worker alike. The outcome is the last stage event.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from panollava import rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import EVENTS_FILE, EventWriter, Note, Progress, StageEvent
from panollava.model.lora import merge_adapters
from panollava.model.parts import Built, build
from panollava.model.text import Prompter
from panollava.stages import RECIPES, Stage
from panollava.training import data, examples, loggers
from panollava.training.health import HealthWatch
from panollava.training.module import StageModule
from panollava.training.recording import Recorder
from panollava.training.saving import STATE, Position, Saver, restore
from panollava.training.stop import Stopped, StopRequest
from panollava.training.watching import Watcher
from panollava.training.weights import describe, final_metadata, light_state, load_weights, read_checkpoint, refuse_merged, save_final
from panollava.views import Cutter

log = logging.getLogger("panollava")


@dataclass(frozen=True)
class StageJob:
    """What to train, where its files go, and what it starts from. At most one of `init_from` and `resume` is set."""

    config: RunConfig
    stage: Stage
    directory: Path
    init_from: Path | None = None
    resume: Path | None = None


def train_stage(job: StageJob, stop: StopRequest) -> Path:
    """Train to the end and return the best checkpoint. Raises BadInput, Stopped (after saving), Diverged."""
    job.directory.mkdir(parents=True, exist_ok=True)
    events = EventWriter(job.directory / EVENTS_FILE)
    rundir.write_whole(job.directory / "config.json", job.config.model_dump_json(indent=1))
    try:
        events.write(_beginning(job))
        best = _Fit(job, stop, events).run()
        events.write(StageEvent(name=job.stage, status="succeeded", best=str(best.relative_to(job.directory))))
        return best
    except Stopped as stopped:
        events.write(StageEvent(name=job.stage, status="stopped", step=stopped.step, reason="stop_requested", detail=str(stopped)))
        raise
    except BaseException as error:
        reason = "bad_input" if isinstance(error, BadInput) else type(error).__name__
        events.write(StageEvent(name=job.stage, status="failed", reason=reason, detail=str(error) or repr(error)))
        raise
    finally:
        events.close()


def _beginning(job: StageJob) -> StageEvent:
    """The first word, said at once: a chart cuts an earlier attempt at the step it names."""
    if job.resume is None:
        return StageEvent(name=job.stage, status="started")
    return StageEvent(name=job.stage, status="resumed", step=rundir.read_note(job.resume).step)


MAY_CHANGE = {"epochs", "max_steps", "save_every_steps", "grad_clip"}
OVERLAP_OPTIONS = ("vicreg_inv", "vicreg_var", "vicreg_cov", "densecl_temperature", "expander_width")


def _check_same_settings(job: StageJob, resume: Path) -> None:
    """A resumed training takes its optimizer, schedule and place in the data from the checkpoint, so what those depend on must be as it was."""
    before, stage, _ = describe(resume)
    if stage != job.stage:
        raise BadInput(f"{resume}: a checkpoint of stage {stage} cannot be resumed in stage {job.stage}.")
    theirs, ours = (_kept(config, job.stage) for config in (before, job.config))
    if changed := [f"{field} was {theirs[field]} and is {ours[field]}" for field in ours if theirs[field] != ours[field]]:
        raise BadInput(f"{resume}: cannot be resumed with other settings: {', '.join(changed)}. --init-from starts anew from its weights.")


def _kept(config: RunConfig, stage: Stage) -> dict[str, Any]:
    kept = config.stages[stage].model_dump(exclude=MAY_CHANGE) | {"seed": config.seed, "loss": config.loss(stage)}
    return kept | ({name: getattr(config, name) for name in OVERLAP_OPTIONS} if config.overlap_loss in config.losses(stage) else {})


class _Fit:
    """The parts of one training, made in the order in which they can fail cheaply."""

    def __init__(self, job: StageJob, stop: StopRequest, events: EventWriter) -> None:
        self.job, self.stop, self.events = job, stop, events
        self.config, self.stage = job.config, job.stage
        self.recipe, self.settings = RECIPES[job.stage], job.config.stages[job.stage]
        self.position = Position()
        self.watch = HealthWatch(events)

    def run(self) -> Path:
        config, settings = self.config, self.settings
        pl.seed_everything(config.seed, workers=True, verbose=False)
        resumed = read_checkpoint(self.job.resume) if self.job.resume else None
        built = build(config, language=self.recipe.needs_text, adapters="lora" in self.recipe.optional)
        self._check_start(built)
        self._check_prompts(built)
        train, valid = self._splits(built)
        samples = data.Samples(train.split, by_row=self.recipe.needs_text)
        plan = data.Plan(len(samples), settings.batch_size, settings.epochs, config.seed, settings.max_steps, drop_last=not self.recipe.needs_text)
        module = StageModule(built, config, self.stage, plan.steps)
        self.saver = Saver(self.job.directory, self.position, built.architecture, self.events, self.stop, plan.steps_per_epoch)
        self._load(built, module, resumed)
        self._say_what_learns(module, plan)
        with loggers.opened(config, self.stage, loggers.Place.of(self.job.directory, self.job.resume), self.events) as logged:
            trainer = self._trainer(plan, logged, examples.callbacks(module, config, valid, self.events, logged))
            self._fit(trainer, module, plan, samples, train, valid, resumed)
        if self.position.best_file is None:
            raise ValueError("No validation gave a finite val_loss, so there is no best checkpoint.")
        self._save_final(built, module)
        return self.job.directory / rundir.CHECKPOINTS / self.position.best_file

    # before the first step ------------------------------------------------------

    def _check_start(self, built: Built) -> None:
        for checkpoint in filter(None, (self.job.init_from, self.job.resume)):
            refuse_merged(checkpoint)
            rundir.check_same_architecture(checkpoint, *describe(checkpoint)[1:], built.architecture)
        if self.job.resume:
            _check_same_settings(self.job, self.job.resume)

    def _check_prompts(self, built: Built) -> None:
        """Also of the stages still to come: what they cannot work with must not wait for the end of this one."""
        for stage in self.config.stage:
            if RECIPES[stage].needs_text:
                Prompter(built.tokenizer, built.image_tokens, self.config.stages[stage].max_text_length)

    def _splits(self, built: Built) -> tuple[data.Collate, data.Collate]:
        """Training and validation data, every image decoded once."""
        cutter = Cutter(built.layout, built.architecture.image_size)
        prompter = Prompter(built.tokenizer, built.image_tokens, self.settings.max_text_length) if self.recipe.needs_text else None
        collates = []
        for name in ("train", "valid"):
            csv = self.config.csv("train" if name == "train" else "valid")
            log.info("decoding the panoramas of %s", csv)
            split = data.load_split(csv, self.config.image_root, self.config.max_bad_frac, cutter, self._on_image, self.recipe.needs_text)
            if self.config.overlap_loss in self.config.losses(self.stage) and (name == "train" or prompter is None):
                data.need_images(csv, split, 4)
            if prompter is not None:
                self._warn_of_cuts(csv, split, prompter)
            for bad in split.index.bad:
                self.events.write(Note(level="warning", text=f"left out: {bad.at(csv)}"))
            collates.append(data.Collate(split, prompter))
        return collates[0], collates[1]

    def _warn_of_cuts(self, csv: Path, split: data.Split, prompter: Prompter) -> None:
        cut = sum(prompter.exchange(row.query, row.annotation).truncated for row in split.index.rows)
        if cut:
            text = f"{csv}: {cut:,} of {len(split.index.rows):,} samples are cut to max_text_length {prompter.max_text_length}."
            log.warning(text)
            self.events.write(Note(level="warning", text=text))

    def _on_image(self, done: int, total: int) -> None:
        if self.stop:
            raise Stopped
        if done == total or done % 100 == 0:
            self.events.write(Progress(done=done, total=total, unit="images"))

    def _load(self, built: Built, module: StageModule, resumed: dict[str, Any] | None) -> None:
        if resumed is not None:
            missing, unexpected = module.load_state_dict(resumed["state_dict"], strict=False)
            if unexpected or light_state(dict.fromkeys(missing), self.stage):
                raise BadInput(f"{self.job.resume}: does not fit this run's model: missing {missing[:3]}, unexpected {unexpected[:3]}.")
            module.step = resumed[STATE]["step"]
            self.position.restore(resumed[STATE]["position"])
            self.watch.resume(resumed)
            assert self.job.resume is not None
            self.saver.bring_best(self.job.resume.parent)
            log.info("resumed from %s at step %d", self.job.resume, module.step)
        elif self.job.init_from:
            log.info("weights from %s: %s", self.job.init_from, load_weights(built.model, self.job.init_from, describe(self.job.init_from)[1]))

    def _say_what_learns(self, module: StageModule, plan: data.Plan) -> None:
        learns = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        total = sum(parameter.numel() for parameter in module.parameters())
        log.info("stage %s: %s learn, %s of %s parameters; %d steps, %d an epoch", self.stage, ", ".join(sorted(self.recipe.trains)),
                 f"{learns:,}", f"{total:,}", plan.steps, plan.steps_per_epoch)  # fmt: skip

    # training ---------------------------------------------------------------------

    def _trainer(self, plan: data.Plan, logged: loggers.Loggers, watching: list[pl.Callback]) -> pl.Trainer:
        for noise in (".*does not have many workers.*", ".*in eval mode at the start.*", ".*LeafSpec.*"):
            warnings.filterwarnings("ignore", message=noise)
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        recorder = Recorder(self.events, log.info, [logged.scalars], plan.steps_per_epoch)
        return pl.Trainer(
            accelerator="auto", devices=1, precision=_precision(self.config), max_epochs=-1, callbacks=[recorder, *watching, self.watch, self.saver],
            logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
            num_sanity_val_steps=0, use_distributed_sampler=False, reload_dataloaders_every_n_epochs=1, gradient_clip_val=self.settings.grad_clip,
        )  # fmt: skip

    def _fit(
        self, trainer: pl.Trainer, module: StageModule, plan: data.Plan, samples: data.Samples, train: data.Collate, valid: data.Collate,
        resumed: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        validation = data.Samples(valid.split, by_row=self.recipe.needs_text)
        batches = list(data.fixed_batches(len(validation), self.settings.batch_size, 1 if self.recipe.needs_text else 4))
        module.val_dataloader = lambda: data.loader(validation, valid, batches, self.config.num_workers)  # type: ignore[method-assign]

        def train_dataloader() -> DataLoader[Any]:
            return data.loader(samples, train, plan.batches(self.position.epoch, self.position.batch), self.config.num_workers)

        module.train_dataloader = train_dataloader  # type: ignore[method-assign]
        if resumed is not None:
            trainer.callbacks.append(_Restore(resumed))  # type: ignore[attr-defined]
            if self.position.epoch < plan.planned_epochs and not plan.batches(self.position.epoch, self.position.batch):
                self.saver.resumed = resumed
                trainer.validate(module, verbose=False)  # it was stopped between an epoch's last step and the end of its validation
        trainer.fit_loop.max_epochs = plan.planned_epochs - self.position.epoch
        if trainer.fit_loop.max_epochs:
            trainer.fit(module)

    def _save_final(self, built: Built, module: StageModule) -> None:
        path = self.job.directory / rundir.FINAL
        merge_adapters(built.model)
        save_final(built.model, path, final_metadata(self.config, self.stage, built.architecture))
        self.saver.add_note(path, module, "final", module.validation)
        log.info("wrote %s; best is %s", path, self.position.best_file)


class _Restore(Watcher):
    """Optimizer, schedule and random numbers, once Lightning has made them."""

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        restore(trainer, pl_module, self.checkpoint)


def _precision(config: RunConfig) -> Any:
    bf16 = config.precision == "bf16" or (config.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    return "bf16-mixed" if bf16 else "32-true"
