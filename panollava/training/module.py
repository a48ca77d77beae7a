"""One stage as a LightningModule: what it minimises, what it lets learn, how its learning rates run.

It knows nothing of files and events; `saving.py` and `recording.py` watch it.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from panollava import ranks
from panollava.config import RunConfig, StageConfig
from panollava.losses import LOSSES
from panollava.losses.expander import expander
from panollava.losses.overlap import FEWEST, OverlapPairs, has_pairs
from panollava.losses.ranks import fingerprints, gathered
from panollava.model.panollava import Batch, freeze, set_modes
from panollava.model.parts import Built
from panollava.stages import RECIPES, Stage
from panollava.training.auto_batch import AutoBatch
from panollava.training.examine import Examination
from panollava.training.optimizer import adamw, set_rates, share_of_peak
from panollava.training.out_of_memory import told
from panollava.training.steps import Step

PATIENCE = 10
"""Steps in a row whose loss is not finite before the run is given up."""


class Diverged(Exception):
    """The loss stayed infinite or NaN."""


class StageModule(pl.LightningModule):
    """`step` counts the stage's optimizer steps over all attempts; `values` holds the last step's scalars, `validation` the last validation's."""

    def __init__(self, built: Built, config: RunConfig, stage: Stage, steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False  # one batch of the loader is one step, whatever its micro-batches
        self.own_validation_batches = math.inf
        """Those after them belong to another rank and are here so that all ranks have equally many."""
        self.model, self.stage, self.steps = built.model, stage, steps
        self.auto_batch = AutoBatch(config, stage)
        self.learns_to_see = "vision" in RECIPES[stage].trains
        self.overlap_weight = config.losses(stage).get(config.overlap_loss, 0.0)
        side = built.architecture.image_size // built.architecture.patch_size
        self.pairs = OverlapPairs(built.layout, side) if self.overlap_weight or (self.learns_to_see and has_pairs(built.layout, side)) else None
        if self.overlap_weight:
            self.expander = expander(built.architecture.vision_width, config.expander_width)
        self.step = 0
        self.values: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._weight = 0
        self.not_finite = 0
        """Steps in a row that were left out."""
        self._examination = Examination(self.pairs)
        self.left_out = 0
        """Steps that were not taken, because their loss or gradient was not finite."""
        self.without_overlap = 0
        """Steps that had too few panoramas for the overlap loss."""
        recipe = RECIPES[stage]
        freeze(self, recipe.trains | ({"expander"} if self.overlap_weight else set()), recipe.optional)

    @property
    def config(self) -> RunConfig:
        """With the accumulation in force."""
        return self.auto_batch.config

    @property
    def settings(self) -> StageConfig:
        return self.config.stages[self.stage]

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """What scales fp16 losses up; without fp16 one that does nothing. The Trainer's, because it scales in `manual_backward`."""
        scaler: torch.amp.GradScaler | None = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler or torch.amp.GradScaler(self.device.type, enabled=False)

    def train(self, mode: bool = True) -> "StageModule":
        """Frozen parts stay in evaluation mode, whatever Lightning asks for."""
        super().train(mode)
        if mode:
            set_modes(self)
        return self

    # losses ---------------------------------------------------------------

    def measure(self, batch: Batch) -> tuple[Tensor, int, dict[str, Tensor]]:
        """The mean loss, how many tokens or panoramas it stands for, and its terms. Term `loss` is the stage's own, where another is added to it."""
        if not self.overlap_weight:
            loss = self.model(batch)
            return loss.mean, loss.tokens, {}
        grid = self.model.see(batch)  # [U, V, G, G, D]
        if self.stage is Stage.vision:
            total, terms = self._overlap_loss(*self._pairs(batch, grid))
            return total, len(batch.pixels), terms
        loss, pairs = self.model(batch, grid), self._pairs(batch, grid)
        if len(pairs[0]) < FEWEST:
            self.without_overlap += 1
            nothing = 0 * (pairs[0].sum() + pairs[1].sum())  # DDP waits for a gradient of every parameter, the expander's too
            return loss.mean + nothing, loss.tokens, {}
        added, terms = self._overlap_loss(*pairs)
        total = loss.mean + self.overlap_weight * added
        return total, loss.tokens, {"loss": loss.mean, "total_loss": total, "overlap_loss": added, **terms}

    def _pairs(self, batch: Batch, grid: Tensor) -> tuple[Tensor, ...]:
        """What the overlap loss compares, [U, M, D] twice: expanded features of all ranks' panoramas while training, in fp32."""
        assert self.pairs is not None
        with torch.autocast(self.device.type, enabled=False):
            pairs = tuple(self.expander(each) for each in self.pairs(grid))
        return gathered(fingerprints(batch.pixels), *pairs) if self.training and ranks.count() > 1 else pairs

    def _overlap_loss(self, mine: Tensor, theirs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss before its weight, and its terms."""
        assert self.pairs is not None
        with torch.autocast(self.device.type, enabled=False):
            return LOSSES[self.config.overlap_loss](mine, theirs, self.pairs, self.config)

    def on_validation_epoch_start(self) -> None:
        self._sums, self._weight = {}, 0
        self._examination = Examination(self.pairs)

    def validation_step(self, batch: Batch, number: int) -> None:
        counts = number < self.own_validation_batches
        for loss, stands_for, terms in self.auto_batch.validation(batch, self.step, self._validate):
            weight = stands_for if counts else 0
            for name, value in {"loss": loss, **terms}.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value) * weight
            self._weight += weight

    def _validate(self, batch: Batch) -> tuple[Tensor, int, dict[str, Tensor]]:
        """As `measure`, of the stage's own loss alone; where the encoder learns, its features are kept for the figures at the end."""
        if not self.learns_to_see:
            return self.measure(batch)
        grid = self.model.patches(batch.pixels)
        self._examination.add(batch.pixels, grid)
        if self.stage is not Stage.vision:
            loss = self.model(batch, grid)
            return loss.mean, loss.tokens, {}
        total, terms = self._overlap_loss(*self._pairs(batch, grid))
        return total, len(batch.pixels), terms

    def on_validation_epoch_end(self) -> None:
        weight, *totals = ranks.sums([self._weight, *self._sums.values()])
        self.validation = {f"val_{name}": total / weight for name, total in zip(self._sums, totals, strict=True)}
        if self.learns_to_see:
            self.validation |= {f"val_{name}": value for name, value in self._examination.figures().items()}

    # optimisation ---------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self, self.settings, fused=self.config.fused_adamw)

    def training_step(self, step: Step, _: int) -> None:
        """The gradients of all micro-batches and ranks add up to the whole batch's. What is not finite on one rank is left out on all."""
        optimizer = self.trainer.optimizers[0]  # not Lightning's wrapper, which would scale and count by itself
        optimizer.zero_grad()
        self.values = self._gradients(step, optimizer) | set_rates(optimizer, share_of_peak(self.step, self.steps, self.settings))
        self.step += 1
        self.scaler.unscale_(optimizer)
        learning = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
        self.values["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(learning, self.settings.grad_clip))
        if self._is_finite():
            with told(self.config, self.stage, "optimizer", step=self.step):
                self.scaler.step(optimizer)
        self.scaler.update()

    def _gradients(self, step: Step, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Fill the gradients, with micro-batches that fit into memory."""
        without_overlap = self.without_overlap

        def undo() -> None:
            optimizer.zero_grad()
            self.without_overlap = without_overlap

        return self.auto_batch.step(step, self.step + 1, self._backward, undo)

    def _backward(self, step: Step) -> dict[str, float]:
        """Fill the gradients; the whole step's mean loss and its terms, over all ranks."""
        (whole,) = ranks.sums([sum(step.weights)])
        found: dict[str, Tensor] = {}
        for number, (batch, weight) in enumerate(zip(step.batches, step.weights, strict=True), start=1):
            share = weight / whole
            with self._exchange_gradients(number == len(step.batches)):
                loss, _, terms = self.measure(batch)
                self.manual_backward(loss * (share * ranks.count()))  # ddp takes the mean over the ranks
            for name, value in {"train_loss": loss, **{f"train_{name}": term for name, term in terms.items()}}.items():
                found[name] = found.get(name, torch.zeros((), device=loss.device)) + value.detach() * share
        return dict(zip(found, ranks.sums(torch.stack(list(found.values())).tolist()), strict=True))

    def _exchange_gradients(self, wanted: bool) -> AbstractContextManager[None]:
        """Ranks exchange their gradients once a step, in its last backward pass."""
        model = self.trainer.model
        if wanted or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        postponed: AbstractContextManager[None] = model.no_sync()
        return postponed

    def _is_finite(self) -> bool:
        """Whether the step may be taken; too many in a row that may not end the training. Raises Diverged."""
        wrong = next((what for what, name in (("loss", "train_loss"), ("gradient", "grad_norm")) if not math.isfinite(self.values[name])), None)
        self.not_finite = self.not_finite + 1 if wrong else 0
        self.left_out += wrong is not None
        if self.left_out:
            self.values["left_out"] = self.left_out
        if self.not_finite >= PATIENCE:
            raise Diverged(f"The {wrong} was not finite in {PATIENCE} steps in a row, up to step {self.step}. Try a lower learning rate, or fp32.")
        return wrong is None
