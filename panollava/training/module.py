"""One stage as a LightningModule: what it minimises, what it lets learn, how its learning rates run.

It knows nothing of files and events; `saving.py` and `recording.py` watch it.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from panollava.config import RunConfig, StageConfig
from panollava.losses.overlap import OverlapPairs, effective_rank, retrieval
from panollava.losses.vicreg import expander, vicreg
from panollava.model.panollava import Batch, freeze, set_modes
from panollava.model.parts import Built
from panollava.stages import RECIPES, Stage
from panollava.training import ranks
from panollava.training.optimizer import adamw, set_rates, share_of_peak
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
        self.model, self.config, self.stage, self.steps = built.model, config, stage, steps
        if stage is Stage.vision:
            self.pairs = OverlapPairs(built.ring, built.architecture.image_size // built.architecture.patch_size)
            self.expander = expander(built.architecture.vision_width, config.expander_width)
        self.step = 0
        self.values: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._weight = 0
        self.not_finite = 0
        """Steps in a row that were left out."""
        freeze(self, RECIPES[stage].trains)

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
        """The mean loss, how many tokens or panoramas it stands for, and its terms."""
        if self.stage is not Stage.vision:
            loss = self.model(batch)
            return loss.mean, loss.tokens, {}
        total, terms = self._vicreg(*self.pairs(self.model.patches(batch.pixels)))
        return total, len(batch.pixels), terms

    def _vicreg(self, mine: Tensor, theirs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of overlap pairs [U, V, M, D] and its terms."""
        with torch.autocast(self.device.type, enabled=False):
            mine, theirs = self.expander(mine.float()), self.expander(theirs.float())
            if self.training:
                mine, theirs = ranks.joined(mine), ranks.joined(theirs)  # statistics over the whole batch
            terms = vicreg(mine, theirs)
        weights = self.config
        total = weights.vicreg_inv * terms.invariance + weights.vicreg_var * terms.variance + weights.vicreg_cov * terms.covariance
        return total, {"invariance": terms.invariance, "variance": terms.variance, "covariance": terms.covariance}

    def on_validation_epoch_start(self) -> None:
        self._sums, self._weight = {}, 0

    def validation_step(self, batch: Batch, number: int) -> None:
        if self.stage is Stage.vision:
            pairs = self.pairs(self.model.patches(batch.pixels))
            (loss, terms), weight, health = self._vicreg(*pairs), len(batch.pixels), self._health(*pairs)
        else:
            (loss, weight, terms), health = self.measure(batch), {}
        weight = weight if number < self.own_validation_batches else 0
        measured: dict[str, Tensor | float] = {"loss": loss, **terms, **health}
        for name, value in measured.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * weight
        self._weight += weight

    def on_validation_epoch_end(self) -> None:
        weight, *totals = ranks.sums([self._weight, *self._sums.values()])
        self.validation = {f"val_{name}": total / weight for name, total in zip(self._sums, totals, strict=True)}

    def _health(self, mine: Tensor, theirs: Tensor) -> dict[str, float]:
        """Is the encoder still telling images apart? Means over batches of one size are comparable between epochs."""
        return {
            "retrieval": retrieval(mine, theirs),
            "effective_rank": effective_rank(mine.flatten(0, 2)[:: max(1, mine[..., 0].numel() // 4096)]),
            "feature_std": float(mine.float().std(0).mean()),
        }

    # optimisation ---------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self, self.settings, fused=self.config.fused_adamw)

    def training_step(self, step: Step, _: int) -> None:
        """The gradients of all micro-batches and ranks add up to the whole batch's. What is not finite on one rank is left out on all."""
        optimizer = self.trainer.optimizers[0]  # not Lightning's wrapper, which would scale and count by itself
        optimizer.zero_grad()
        self.values = self._backward(step) | set_rates(optimizer, share_of_peak(self.step, self.steps, self.settings))
        self.step += 1
        self.scaler.unscale_(optimizer)
        learning = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
        self.values["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(learning, self.settings.grad_clip))
        if self._is_finite():
            self.scaler.step(optimizer)
        self.scaler.update()

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
        if self.not_finite >= PATIENCE:
            raise Diverged(f"The {wrong} was not finite in {PATIENCE} steps in a row, up to step {self.step}. Try a lower learning rate, or fp32.")
        return wrong is None
