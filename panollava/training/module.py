"""One stage as a LightningModule: what it minimises, what it lets learn, how its learning rates run.

It knows nothing of files and events; `saving.py` and `recording.py` watch it.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from panollava.config import RunConfig, StageConfig
from panollava.losses.overlap import OverlapPairs, effective_rank, retrieval
from panollava.losses.vicreg import expander, vicreg
from panollava.model.panollava import Batch, freeze, set_modes
from panollava.model.parts import Built
from panollava.stages import RECIPES, Stage

PATIENCE = 10
"""Steps in a row whose loss is not finite before the run is given up."""


class Diverged(Exception):
    """The loss stayed infinite or NaN."""


class StageModule(pl.LightningModule):
    """`step` counts the stage's optimizer steps over all attempts; `values` holds the last step's scalars, `validation` the last validation's."""

    def __init__(self, built: Built, config: RunConfig, stage: Stage, steps: int) -> None:
        super().__init__()
        self.model, self.config, self.stage, self.steps = built.model, config, stage, steps
        if stage is Stage.vision:
            self.pairs = OverlapPairs(built.layout.views, built.architecture.image_size // built.architecture.patch_size)
            self.expander = expander(built.architecture.vision_width, config.expander_width)
        self.step = 0
        self.values: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._weight = 0
        self._not_finite = 0
        freeze(self, RECIPES[stage].trains, RECIPES[stage].optional)

    @property
    def settings(self) -> StageConfig:
        return self.config.stages[self.stage]

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
            terms = vicreg(self.expander(mine.float()), self.expander(theirs.float()))
        weights = self.config
        total = weights.vicreg_inv * terms.invariance + weights.vicreg_var * terms.variance + weights.vicreg_cov * terms.covariance
        return total, {"invariance": terms.invariance, "variance": terms.variance, "covariance": terms.covariance}

    def training_step(self, batch: Batch, _: int) -> Tensor | None:
        loss, _, terms = self.measure(batch)
        self.step += 1
        self.values = {"train_loss": float(loss.detach())} | {f"train_{name}": float(term.detach()) for name, term in terms.items()}
        if math.isfinite(self.values["train_loss"]):
            return loss
        self._count_not_finite("loss")
        return None

    def _count_not_finite(self, what: str) -> None:
        """The step is left out; too many in a row end the training. Raises Diverged."""
        self._not_finite += 1
        if self._not_finite >= PATIENCE:
            raise Diverged(f"The {what} was not finite in {PATIENCE} steps in a row, up to step {self.step}. Try a lower learning rate, or fp32.")

    def on_validation_epoch_start(self) -> None:
        self._sums, self._weight = {}, 0

    def validation_step(self, batch: Batch, _: int) -> None:
        if self.stage is Stage.vision:
            pairs = self.pairs(self.model.patches(batch.pixels))
            (loss, terms), weight, health = self._vicreg(*pairs), len(batch.pixels), self._health(*pairs)
        else:
            (loss, weight, terms), health = self.measure(batch), {}
        measured: dict[str, Tensor | float] = {"loss": loss, **terms, **health}
        for name, value in measured.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * weight
        self._weight += weight

    def on_validation_epoch_end(self) -> None:
        self.validation = {f"val_{name}": total / self._weight for name, total in self._sums.items()}

    def _health(self, mine: Tensor, theirs: Tensor) -> dict[str, float]:
        """Is the encoder still telling images apart? Means over batches of one size are comparable between epochs."""
        return {
            "retrieval": retrieval(mine, theirs),
            "effective_rank": effective_rank(mine.flatten(0, 2)[:: max(1, mine[..., 0].numel() // 4096)]),
            "feature_std": float(mine.float().std(0).mean()),
        }

    # optimisation ---------------------------------------------------------

    def configure_optimizers(self) -> Any:
        settings = self.settings
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            lr = settings.vision_lr or settings.lr if "vision" in name.split(".") else settings.lr
            decay = 0.0 if parameter.ndim <= 1 or "position_embedding" in name else settings.weight_decay
            groups.setdefault((lr, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": lr, "weight_decay": decay} for (lr, decay), parameters in groups.items()], betas=(0.9, 0.95)
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _share(self, step: int) -> float:
        """Share of the peak learning rate at a step: a straight rise, then a cosine down to min_lr_ratio."""
        warm, floor = math.ceil(self.settings.warmup_ratio * self.steps), self.settings.min_lr_ratio
        if step < warm:
            return (step + 1) / (warm + 1)
        done = (step - warm) / max(1, self.steps - warm)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        learning = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
        if not learning:
            return  # the loss was not finite, so there was no backward pass
        self.values["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(learning, self.settings.grad_clip))
        if math.isfinite(self.values["grad_norm"]):
            self._not_finite = 0
            return
        optimizer.zero_grad()  # scaling by an infinite norm would make every weight NaN
        self._count_not_finite("gradient")
