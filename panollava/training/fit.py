"""Train one stage: check, load, train, and leave a directory that explains itself.

Every training passes through `train_stage`, from a terminal and from a worker alike. The outcome is the last stage event.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from panollava import causes, ranks, rundir
from panollava.errors import BadInput, OutOfMemory
from panollava.events import EVENTS_FILE, EventWriter, Say, Silence, StageEvent
from panollava.hf.describe import self_description
from panollava.model.lora import merge_adapters
from panollava.model.parts import Built, build
from panollava.stages import Stage
from panollava.training import beside, data, examples, loggers, steps
from panollava.training.devices import trainer_of
from panollava.training.fellows import Fellows, RankLost
from panollava.training.health import HealthWatch
from panollava.training.history import before, history_entry
from panollava.training.job import StageJob, Voice
from panollava.training.memory import fix_algorithms, recompute_activations
from panollava.training.module import Diverged, StageModule
from panollava.training.out_of_memory import told
from panollava.training.position import STATE, Position
from panollava.training.recording import Recorder
from panollava.training.resuming import Restore, as_it_went, check_not_past, check_same_settings, other_views
from panollava.training.saving import Saver
from panollava.training.splits import Splits, check_prompts
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import describe, final_metadata, load_state, load_weights, part_of, read_checkpoint, refuse_merged, save_final

log = logging.getLogger("panollava")

UNTRAINED_LR = 1e-4
"""Below this a new bridge hardly learns: others train theirs at 1e-3 to 5e-3."""
NOISE = (".*does not have many workers.*", ".*in eval mode at the start.*", ".*LeafSpec.*", ".*broadcast_buffers.*deprecated.*")
"""Lightning's warnings that say nothing to whoever reads our log."""


def train_stage(job: StageJob, stop: StopRequest, fellows: Fellows | None = None) -> Path:
    """Train to the end and return the best checkpoint. Raises BadInput, Stopped (after saving), OutOfMemory, Diverged, RankLost."""
    events = _open_events(job)
    try:
        events.write(_beginning(job))
        with (fellows or Fellows()).watched(lambda lost: _fail(job, events, lost)), told(job.config, job.stage, "rest"):
            best = _Fit(as_it_went(job), stop, events).run()
        events.write(StageEvent(name=job.stage, status="succeeded", best=str(best.relative_to(job.directory))))
        return best
    except Stopped as stopped:
        events.write(StageEvent(name=job.stage, status="stopped", step=stopped.step, reason=stop.reason, detail=str(stopped)))
        raise
    except BaseException as error:
        _fail(job, events, error)
        raise
    finally:
        events.close()


def _fail(job: StageJob, events: Say, error: BaseException) -> None:
    if isinstance(error, RankLost) and ranks.local() == 1:
        events = EventWriter(job.directory / EVENTS_FILE)  # the first rank is no more, and the next speaks for it
    step, suggestion = (error.step, error.suggestion) if isinstance(error, OutOfMemory) else (0, None)
    told = StageEvent(name=job.stage, status="failed", step=step, reason=causes.word(error), detail=causes.said(error), suggestion=suggestion)
    events.write(told)


def _open_events(job: StageJob) -> Say:
    job.directory.mkdir(parents=True, exist_ok=True)
    if not ranks.is_first():
        return Silence()
    events = EventWriter(job.directory / EVENTS_FILE)
    rundir.write_whole(job.directory / "config.json", job.config.model_dump_json(indent=1))
    return events


def _beginning(job: StageJob) -> StageEvent:
    """The first word, said at once: a chart cuts an earlier attempt at the step it names."""
    if job.resume is None:
        return StageEvent(name=job.stage, status="started")
    return StageEvent(name=job.stage, status="resumed", step=rundir.read_note(job.resume).step)


class _Fit:
    """The parts of one training, made in the order in which they can fail cheaply."""

    def __init__(self, job: StageJob, stop: StopRequest, events: Say) -> None:
        self.job, self.stop, self.events, self.voice = job, stop, events, Voice(events)
        self.config, self.stage, self.recipe, self.settings = job.config, job.stage, job.recipe, job.settings
        self.position = Position()
        self.watch = HealthWatch(events)

    def run(self) -> Path:
        config, settings = self.config, self.settings
        trainer = trainer_of(config)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        if config.deterministic:
            fix_algorithms()
        for warning in self.job.warnings:
            self.voice.warn(warning)
        resumed = read_checkpoint(self.job.resume) if self.job.resume else None
        built = build(config, language=self.recipe.needs_text, adapters="lora" in self.recipe.optional)
        self._check_start(built)
        check_prompts(self.job, built)
        splits = Splits(self.job, built, self.voice, self._on_image)
        train, valid = splits.read()
        samples = data.Samples(train.split, by_row=self.recipe.needs_text)
        plan = data.Plan(len(samples), settings.batch_size, settings.epochs, config.seed, settings.max_steps, drop_last=not self.recipe.needs_text)
        module = StageModule(built, config, self.stage, plan.steps)
        module.auto_batch.warn = self.voice.warn
        self.saver = Saver(self.job.directory, self.position, built.architecture, self.events, self.stop, plan.steps_per_epoch)
        self.saver.before, self.saver.beside = before(self.job), beside.fingerprints(built.model)
        self._load(built, module, resumed)
        train, valid = splits.encoded(train), splits.encoded(valid)
        self._say_what_learns(module, plan)
        self._save_memory(module)
        if ranks.rank():
            pl.seed_everything(config.seed + ranks.rank(), verbose=False)  # the weights are made; each rank drops other activations
        with loggers.opened(config, self.stage, loggers.Place.of(self.job.directory, self.job.resume), self.events) as logged:
            self._watch(trainer, plan, logged, examples.callbacks(module, config, valid, self.events, logged))
            self._fit(trainer, module, plan, samples, train, valid, resumed)
        if self.position.best_file is None:
            raise Diverged("No validation gave a finite val_loss, so there is no best checkpoint.")
        if ranks.is_first():
            self._save_final(built, module)
        ranks.wait()
        return self.job.directory / rundir.CHECKPOINTS / self.position.best_file

    # before the first step ------------------------------------------------------

    def _check_start(self, built: Built) -> None:
        for checkpoint in filter(None, (self.job.init_from, self.job.resume)):
            refuse_merged(checkpoint)
            rundir.check_same_architecture(checkpoint, *describe(checkpoint)[1:], built.architecture)
        if self.job.resume:
            check_same_settings(self.job, self.job.resume)
            beside.check_same(self.job.resume, built.model)

    def _on_image(self, done: int, total: int) -> None:
        if self.stop and ranks.is_first():  # another rank goes on to the first step, where all decide alike
            raise Stopped
        self.voice.images(done, total)

    def _load(self, built: Built, module: StageModule, resumed: dict[str, Any] | None) -> None:
        if resumed is not None:
            assert self.job.resume is not None
            report = load_state(module, self.job.resume, resumed["state_dict"], self.stage)
            module.step = resumed[STATE]["step"]
            check_not_past(self.job.resume, module.step, module.steps)
            self.position.restore(resumed[STATE]["position"])
            self.position.give_more(self.settings.patience)
            self.watch.resume(resumed)
            self.saver.bring_best(self.job.resume.parent)
            self.voice.say(f"resumed from {self.job.resume} at step {module.step}: {report}")
            return
        stage = None
        if self.job.init_from:
            theirs, stage, _ = describe(self.job.init_from)
            if other := other_views(theirs, self.config):
                self.voice.warn(f"{self.job.init_from} has learned from other views: {other}.")
            if other := beside.differing(self.job.init_from, built.model):
                self.voice.warn(f"{self.job.init_from} has learned beside other models: {other}.")
            self.voice.say(f"weights from {self.job.init_from}: {load_weights(built.model, self.job.init_from, stage)}")
            self._check_language_model(built, self.job.init_from)
        self._warn_of_untrained_bridge(stage)

    def _check_language_model(self, built: Built, start: Path) -> None:
        """A complete file brings a language model, and the checkpoints of this stage would not hold it."""
        if start.suffix == ".safetensors" and beside.fingerprints(built.model) != self.saver.beside:
            why = f"its weights are not those that {start} holds."
            raise BadInput(f"language_model is {self.config.language_model}, and {why}", [("language_model", why)])

    def _warn_of_untrained_bridge(self, start: Stage | None) -> None:
        lr = self.settings.projector_lr or self.settings.lr
        if self.recipe.needs_text and start in (None, Stage.vision) and lr < UNTRAINED_LR:
            self.voice.warn(f"Resampler and projection start untrained, and {lr:g} is a low learning rate for that; projector_lr 1e-3 is usual.")

    def _say_what_learns(self, module: StageModule, plan: data.Plan) -> None:
        learning = {name: parameter.numel() for name, parameter in module.named_parameters() if parameter.requires_grad}
        total = sum(parameter.numel() for parameter in module.parameters())
        parts = ", ".join(sorted({part_of(name) for name in learning}))
        log.info("stage %s: %s learn, %s of %s parameters; %d steps, %d an epoch", self.stage, parts, f"{sum(learning.values()):,}", f"{total:,}",
                 plan.steps, plan.steps_per_epoch)  # fmt: skip

    # training ---------------------------------------------------------------------

    def _save_memory(self, module: StageModule) -> None:
        """Of the encoders through which a gradient flows."""
        encoders = [part for part, flows in ((module.model.vision, "vision" in self.recipe.trains), (module.model.language, True)) if part and flows]
        for encoder in encoders:
            if self.config.gradient_checkpointing and not recompute_activations(encoder):
                why = f"{type(encoder).__name__} has no layers that can compute their activations again."
                raise BadInput(f"gradient_checkpointing is set, but {why}", [("gradient_checkpointing", why)])
            if self.config.compile:
                encoder.compile()

    def _watch(self, trainer: pl.Trainer, plan: data.Plan, logged: loggers.Loggers, watching: list[pl.Callback]) -> None:
        for noise in NOISE:
            warnings.filterwarnings("ignore", message=noise)
        if ranks.is_first():
            watching = [Recorder(self.events, log.info, [logged.scalars], plan.steps_per_epoch), *watching]
        trainer.callbacks.extend([*watching, self.watch, self.saver])  # type: ignore[attr-defined]

    def _fit(
        self, trainer: pl.Trainer, module: StageModule, plan: data.Plan, samples: data.Samples, train: data.Collate, valid: data.Collate,
        resumed: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        validation = data.Samples(valid.split, by_row=self.recipe.needs_text)
        batches = list(data.fixed_batches(len(validation), self.settings.batch_size, 1 if self.recipe.needs_text else 4))
        batches, module.own_validation_batches = steps.validation_share(batches)
        module.val_dataloader = lambda: data.loader(validation, valid, batches, self.config.num_workers)  # type: ignore[method-assign]

        def train_dataloader() -> DataLoader[Any]:
            share = steps.share(train, module.settings.batch_size, module.settings.accumulation)
            return data.loader(samples, share, plan.batches(self.position.epoch, self.position.batch), self.config.num_workers)

        module.train_dataloader = train_dataloader  # type: ignore[method-assign]
        if resumed is not None:
            trainer.callbacks.append(Restore(resumed))  # type: ignore[attr-defined]
            if not self._has_left(plan) and not self.position.is_validated and self.position.batch:
                self.saver.resumed = resumed
                trainer.validate(module, verbose=False)  # it was stopped between an epoch's last step and the end of its validation
        if self._has_left(plan) and not self.position.is_over:
            trainer.fit_loop.max_epochs = plan.planned_epochs - self.position.epoch
            module.train()  # encoders come out of from_pretrained in evaluation mode, and Lightning leaves modes as they are
            trainer.fit(module)
        if module.step != plan.steps and not self.position.is_over:
            raise RuntimeError(f"The stage has {plan.steps} steps and ended after {module.step}.")
        if module.left_out == module.step:
            raise Diverged(f"The loss or gradient was finite in none of {module.step} steps. Try a lower learning rate, or fp32.")

    def _has_left(self, plan: data.Plan) -> bool:
        """Whether steps are left in the epoch at hand."""
        return self.position.epoch < plan.planned_epochs and bool(plan.batches(self.position.epoch, self.position.batch))

    def _save_final(self, built: Built, module: StageModule) -> None:
        path = self.job.directory / rundir.FINAL
        merge_adapters(built.model)
        metadata = final_metadata(module.config, self.stage, built.architecture) | self_description(built, module.config, self.stage)
        metadata |= history_entry(self.saver.history(module))
        save_final(built.model, path, metadata)
        self.saver.add_note(path, module, "final", module.validation)
        log.info("wrote %s; best is %s", path, self.position.best_file)
        if self.config.auto_batch:
            self.voice.say(f"auto_batch: ended with accumulation {module.settings.accumulation} (micro-batches of {module.settings.micro_batch})")
