"""Notes on the encoder's health and on steps that did not count, beside the figures of each validation."""

import math
from typing import Any

import pytorch_lightning as pl
import torch

from panollava.events import Note, Say
from panollava.losses.overlap import FEWEST
from panollava.model.panollava import Batch
from panollava.training.examine import Examination
from panollava.training.module import StageModule
from panollava.training.watching import Watcher

FALL, RECOVERED = 0.7, 0.8
"""Shares of the effective rank before the first step: below the one a collapse is told, and above the other the next may be told."""


class HealthWatch(Watcher):
    """Says at a validation what the figures alone would not: that features collapse, once for each fall, and that steps did not count."""

    def __init__(self, events: Say) -> None:
        self.events = events
        self.first: float | None = None
        self.fallen = False
        self.left_out = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        self.left_out = pl_module.left_out
        if self.first is None and pl_module.learns_to_see and not pl_module.step:
            self.first = examined(trainer, pl_module).get("effective_rank")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        self._watch_rank(pl_module.validation.get("val_effective_rank", math.nan))
        if count := pl_module.without_overlap:
            text = f"{count} steps had fewer than {FEWEST} different panoramas, so they went without the overlap loss; a larger batch has more."
            self.events.write(Note(level="info", text=text))
            pl_module.without_overlap = 0
        if count := pl_module.left_out - self.left_out:
            text = f"{count} steps were left out, because their loss or gradient was not finite; {pl_module.left_out} of {pl_module.step} so far."
            self.events.write(Note(level="warning", text=text))
            self.left_out = pl_module.left_out

    def _watch_rank(self, rank: float) -> None:
        if not math.isfinite(rank):
            return
        if self.first is None:
            self.first = rank  # resumed from a checkpoint that has kept none
        if rank < FALL * self.first and not self.fallen:
            self.fallen = True
            self.events.write(Note(level="warning", text=collapse(self.first, rank)))
        elif rank > RECOVERED * self.first:
            self.fallen = False

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "fallen": self.fallen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.fallen = state_dict["first"], state_dict["fallen"]

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on as the checkpoint left it; one that was written before there was a watch has nothing to say."""
        if state := checkpoint.get("callbacks", {}).get(self.state_key):
            self.load_state_dict(state)


@torch.no_grad()
def examined(trainer: pl.Trainer, module: StageModule) -> dict[str, float]:
    """The figures of a validation's panoramas as the encoder sees them now. Ranks ask together."""
    examination = Examination(module.pairs)

    def look(part: Batch) -> None:
        examination.add(part.pixels, module.model.patches(part.pixels))

    module.eval()
    with trainer.precision_plugin.forward_context():
        for batch in module.val_dataloader():
            if examination.is_full:
                break
            module.auto_batch.validation(batch.to(module.device), module.step, look)
    module.train()
    return examination.figures()


def collapse(first: float, now: float) -> str:
    """What is told, and what to do about it."""
    return (
        f"The vision encoder's features collapse: their effective rank is {now:.3g}, and was {first:.3g} before the stage's first step. "
        "Go on from an earlier checkpoint, with a lower learning rate, fewer epochs, or a higher weight of VICReg's variance and covariance."
    )
