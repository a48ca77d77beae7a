"""Train one stage: check, load, train, and leave a directory that explains itself.

Every training passes through `train_stage`, from a terminal and from a worker alike. The outcome is the last stage event.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from panollava import rundir
from panollava.config import RunConfig
from panollava.data.cache import views_recipe
from panollava.data.fingerprint import Fingerprint, changed, fingerprint, write_fingerprints
from panollava.errors import BadInput
from panollava.events import EVENTS_FILE, EventWriter, Note, Progress, Say, Silence, StageEvent
from panollava.hf.describe import self_description
from panollava.model.lora import merge_adapters
from panollava.model.parts import Built, build
from panollava.model.text import Prompter
from panollava.stages import RECIPES, Stage
from panollava.training import data, examples, loggers, ranks, steps
from panollava.training.devices import precision_of, trainer_of
from panollava.training.features import encode_missing, features_of
from panollava.training.health import HealthWatch
from panollava.training.memory import fix_algorithms, recompute_activations
from panollava.training.module import StageModule
from panollava.training.position import STATE, Position, restore
from panollava.training.recording import Recorder
from panollava.training.saving import Saver
from panollava.training.stop import Stopped, StopRequest
from panollava.training.watching import Watcher
from panollava.training.weights import describe, final_metadata, load_state, load_weights, read_checkpoint, refuse_merged, save_final
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
    warnings: tuple[str, ...] = ()
    """What was noticed while the start was chosen."""


def train_stage(job: StageJob, stop: StopRequest) -> Path:
    """Train to the end and return the best checkpoint. Raises BadInput, Stopped (after saving), Diverged."""
    events = _open_events(job)
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


SPLITS: tuple[Literal["train", "valid"], ...] = ("train", "valid")
MAY_CHANGE = {"epochs", "max_steps", "save_every_steps", "save_every_minutes", "keep_step_checkpoints", "grad_clip", "patience"}
ADDS_UP = {"accumulation"}
"""May change besides where the gradients of micro-batches add up to the whole batch's: not those of an overlap loss."""
UNTRAINED_LR = 1e-4
"""Below this a new bridge hardly learns: others train theirs at 1e-3 to 5e-3."""
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
    """What a stage's optimizer and losses depend on."""
    may_change = MAY_CHANGE | (set() if config.overlap_loss in config.losses(stage) else ADDS_UP)
    kept = config.stages[stage].model_dump(exclude=may_change) | {"seed": config.seed, "loss": config.loss(stage)}
    kept |= {"lora_r": config.lora_r} if "lora" in RECIPES[stage].optional else {}
    return kept | ({name: getattr(config, name) for name in OVERLAP_OPTIONS} if config.overlap_loss in config.losses(stage) else {})


class _Fit:
    """The parts of one training, made in the order in which they can fail cheaply."""

    def __init__(self, job: StageJob, stop: StopRequest, events: Say) -> None:
        self.job, self.stop, self.events = job, stop, events
        self.config, self.stage = job.config, job.stage
        self.recipe, self.settings = RECIPES[job.stage], job.config.stages[job.stage]
        self.position = Position()
        self.watch = HealthWatch(events)

    def run(self) -> Path:
        config, settings = self.config, self.settings
        trainer = trainer_of(config)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        if config.deterministic:
            fix_algorithms()
        for warning in self.job.warnings:
            self._warn(warning)
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
        train, valid = self._encoded(built, train), self._encoded(built, valid)
        self._say_what_learns(module, plan)
        self._save_memory(module)
        if ranks.rank():
            pl.seed_everything(config.seed + ranks.rank(), verbose=False)  # the weights are made; each rank drops other activations
        with loggers.opened(config, self.stage, loggers.Place.of(self.job.directory, self.job.resume), self.events) as logged:
            self._watch(trainer, plan, logged, examples.callbacks(module, config, valid, self.events, logged))
            self._fit(trainer, module, plan, samples, train, valid, resumed)
        if self.position.best_file is None:
            raise ValueError("No validation gave a finite val_loss, so there is no best checkpoint.")
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
            _check_same_settings(self.job, self.job.resume)

    def _check_prompts(self, built: Built) -> None:
        """Also of the stages still to come: what they cannot work with must not wait for the end of this one."""
        for stage in self.config.stage:
            if RECIPES[stage].needs_text:
                Prompter(built.tokenizer, built.image_tokens, self.config.stages[stage].max_text_length)

    def _splits(self, built: Built) -> tuple[data.Collate, data.Collate]:
        """Training and validation data, every image looked at."""
        cutter = Cutter(built.layout, built.architecture.image_size)
        prompter = Prompter(built.tokenizer, built.image_tokens, self.settings.max_text_length) if self.recipe.needs_text else None
        collates: list[data.Collate] = []
        prints: dict[str, Fingerprint] = {}
        self.access = data.access(self.config, cutter, self._on_image)
        for name in SPLITS:
            csvs = self.config.csvs(name)
            log.info("reading the panoramas of %s", ", ".join(map(str, csvs)))
            split = data.load_split(
                csvs, self.config.image_root, self.config.max_bad_frac, cutter, self._on_image, self.recipe.needs_text,
                access=self.access, need_views="vision" in self.recipe.trains or self.config.cache != "auto",
            )  # fmt: skip
            if self.config.overlap_loss in self.config.losses(self.stage) and (name == "train" or prompter is None):
                data.need_images(csvs, split, self._least_images(name))
            if prompter is not None:
                self._warn_of_cuts(csvs, split, prompter)
            for bad in split.index.bad:
                self.events.write(Note(level="warning", text=f"left out: {bad}"))
            prints[name] = fingerprint(csvs, split.index)
            collates.append(data.Collate(split, prompter))
        self._say_what_data(prints)
        return collates[0], collates[1]

    def _least_images(self, name: str) -> int:
        """Statistics across images need four in a batch, and whole batches where they are shared out."""
        is_shared = name == "train" and (self.settings.accumulation > 1 or ranks.count() > 1)
        return self.settings.batch_size if is_shared else 4

    def _say_what_data(self, prints: dict[str, Fingerprint]) -> None:
        """Keep what the run learns from, and warn where a training that is continued has learned from something else so far."""
        for name, each in prints.items():
            self.events.write(Note(level="info", text=f"{name}: {each}"))
        if self.job.resume:
            for name in changed(self.job.resume.parent.parent, prints):
                self._warn(f"{name}: tables or images are not those that {self.job.resume} has learned from; the order of samples may differ.")
        if ranks.is_first():
            write_fingerprints(self.job.directory, prints)

    def _encoded(self, built: Built, collate: data.Collate) -> data.Collate:
        """With the features of a frozen encoder, so that no step has to compute them."""
        split, room = collate.split, self.access.room
        if room is None or self.config.cache != "auto" or "vision" in self.recipe.trains:
            return collate
        device, panoramas = torch.device("cuda" if torch.cuda.is_available() else "cpu"), split.panoramas
        recipe = views_recipe(panoramas.cutter, panoramas.reading)
        features = features_of(built.model, room, recipe, split.index.pictures, precision_of(self.config).precision, device)
        encode_missing(features, built.model, split.index.used_images, panoramas.__getitem__, device, self._on_image)
        if room.is_full:
            self._warn(
                f"{room.root} is full: cache_gb is {self.config.cache_gb:g}, or the disk has no more room. The rest is computed in every epoch."
            )
        return replace(collate, features=features)

    def _warn_of_cuts(self, csvs: Sequence[Path], split: data.Split, prompter: Prompter) -> None:
        cut = sum(prompter.exchange(row.query, row.annotation).truncated for row in split.index.rows)
        if cut:
            names = ", ".join(map(str, csvs))
            self._warn(f"{names}: {cut:,} of {len(split.index.rows):,} samples are cut to max_text_length {prompter.max_text_length}.")

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        self.events.write(Note(level="warning", text=text))

    def _on_image(self, done: int, total: int) -> None:
        if self.stop:
            raise Stopped
        if done == total or done % 100 == 0:
            self.events.write(Progress(done=done, total=total, unit="images"))

    def _load(self, built: Built, module: StageModule, resumed: dict[str, Any] | None) -> None:
        if resumed is not None:
            assert self.job.resume is not None
            report = load_state(module, self.job.resume, resumed["state_dict"], self.stage)
            module.step = resumed[STATE]["step"]
            self.position.restore(resumed[STATE]["position"])
            self.watch.resume(resumed)
            self.saver.bring_best(self.job.resume.parent)
            self._say(f"resumed from {self.job.resume} at step {module.step}: {report}")
            return
        stage = None
        if self.job.init_from:
            stage = describe(self.job.init_from)[1]
            self._say(f"weights from {self.job.init_from}: {load_weights(built.model, self.job.init_from, stage)}")
        self._warn_of_untrained_bridge(stage)

    def _say(self, text: str) -> None:
        log.info("%s", text)
        self.events.write(Note(level="info", text=text))

    def _warn_of_untrained_bridge(self, start: Stage | None) -> None:
        lr = self.settings.projector_lr or self.settings.lr
        if self.recipe.needs_text and start in (None, Stage.vision) and lr < UNTRAINED_LR:
            self._warn(f"Resampler and projection start untrained, and {lr:g} is a low learning rate for that; projector_lr 1e-3 is usual.")

    def _say_what_learns(self, module: StageModule, plan: data.Plan) -> None:
        learns = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        total = sum(parameter.numel() for parameter in module.parameters())
        log.info("stage %s: %s learn, %s of %s parameters; %d steps, %d an epoch", self.stage, ", ".join(sorted(self.recipe.trains)),
                 f"{learns:,}", f"{total:,}", plan.steps, plan.steps_per_epoch)  # fmt: skip

    # training ---------------------------------------------------------------------

    def _save_memory(self, module: StageModule) -> None:
        """Of the encoders through which a gradient flows."""
        encoders = [part for part, flows in ((module.model.vision, "vision" in self.recipe.trains), (module.model.language, True)) if part and flows]
        for encoder in encoders:
            if self.config.gradient_checkpointing and not recompute_activations(encoder):
                raise BadInput(f"gradient_checkpointing is set, but {type(encoder).__name__} has no layers that can compute their activations again.")
            if self.config.compile:
                encoder.compile()

    def _watch(self, trainer: pl.Trainer, plan: data.Plan, logged: loggers.Loggers, watching: list[pl.Callback]) -> None:
        for noise in (".*does not have many workers.*", ".*in eval mode at the start.*", ".*LeafSpec.*", ".*broadcast_buffers.*deprecated.*"):
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
        share = steps.share(train, self.settings.batch_size, self.settings.accumulation)
        module.val_dataloader = lambda: data.loader(validation, valid, batches, self.config.num_workers)  # type: ignore[method-assign]

        def train_dataloader() -> DataLoader[Any]:
            return data.loader(samples, share, plan.batches(self.position.epoch, self.position.batch), self.config.num_workers)

        module.train_dataloader = train_dataloader  # type: ignore[method-assign]
        if resumed is not None:
            trainer.callbacks.append(_Restore(resumed))  # type: ignore[attr-defined]
            if self.position.epoch < plan.planned_epochs and not plan.batches(self.position.epoch, self.position.batch):
                self.saver.resumed = resumed
                trainer.validate(module, verbose=False)  # it was stopped between an epoch's last step and the end of its validation
        trainer.fit_loop.max_epochs = 0 if self.position.is_over else plan.planned_epochs - self.position.epoch
        if trainer.fit_loop.max_epochs:
            trainer.fit(module)

    def _save_final(self, built: Built, module: StageModule) -> None:
        path = self.job.directory / rundir.FINAL
        merge_adapters(built.model)
        metadata = final_metadata(self.config, self.stage, built.architecture) | self_description(built, self.config, self.stage)
        save_final(built.model, path, metadata)
        self.saver.add_note(path, module, "final", module.validation)
        log.info("wrote %s; best is %s", path, self.position.best_file)


class _Restore(Watcher):
    """Optimizer, loss scale and random numbers, once Lightning has made them."""

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        restore(trainer, pl_module, self.checkpoint)
