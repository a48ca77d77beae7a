"""One stage as a LightningModule: what it minimises, what it lets learn, how its learning rates run.

It knows nothing of files and events; `saving.py` and `recording.py` watch it.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from panollava.config import RunConfig, StageConfig
from panollava.losses import LOSSES
from panollava.losses.expander import expander
from panollava.losses.overlap import FEWEST, OverlapPairs, has_pairs
from panollava.losses.ranks import fingerprints, gathered, ranks
from panollava.model.panollava import Batch, freeze, set_modes
from panollava.model.parts import Built
from panollava.stages import RECIPES, Stage
from panollava.training.examine import Examination

PATIENCE = 10
"""Steps in a row whose loss is not finite before the run is given up."""


class Diverged(Exception):
    """The loss stayed infinite or NaN."""


class StageModule(pl.LightningModule):
    """`step` counts the stage's optimizer steps over all attempts; `values` holds the last step's scalars, `validation` the last validation's."""

    def __init__(self, built: Built, config: RunConfig, stage: Stage, steps: int) -> None:
        super().__init__()
        self.model, self.config, self.stage, self.steps = built.model, config, stage, steps
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
        self._not_finite = 0
        self._examination = Examination(self.pairs)
        self.without_overlap = 0
        """Steps that had too few panoramas for the overlap loss."""
        recipe = RECIPES[stage]
        freeze(self, recipe.trains | ({"expander"} if self.overlap_weight else set()), recipe.optional)

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
        """The mean loss, how many tokens or panoramas it stands for, and its terms. Term `loss` is the stage's own, where another is added to it."""
        if not self.overlap_weight:
            loss = self.model(batch)
            return loss.mean, loss.tokens, {}
        grid = self.model.patches(batch.pixels)  # [U, V, G, G, D]
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
        return gathered(fingerprints(batch.pixels), *pairs) if self.training and ranks() > 1 else pairs

    def _overlap_loss(self, mine: Tensor, theirs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss before its weight, and its terms."""
        assert self.pairs is not None
        with torch.autocast(self.device.type, enabled=False):
            return LOSSES[self.config.overlap_loss](mine, theirs, self.pairs, self.config)

    def training_step(self, batch: Batch, _: int) -> Tensor | None:
        loss, _, terms = self.measure(batch)
        self.step += 1
        value = float(loss.detach())
        self.values = {"train_loss": value} | {f"train_{name}": float(term.detach()) for name, term in terms.items()}
        if math.isfinite(value):
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
        self._examination = Examination(self.pairs)

    def validation_step(self, batch: Batch, _: int) -> None:
        loss, weight, terms = self._validate(batch)
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
        self.validation = {f"val_{name}": total / self._weight for name, total in self._sums.items()}
        if self.learns_to_see:
            self.validation |= {f"val_{name}": value for name, value in self._examination.figures().items()}

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
