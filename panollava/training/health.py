"""Notes on the encoder's health and on steps without a loss, beside the figures of each validation."""

import math
from typing import Any

import pytorch_lightning as pl

from panollava.events import EventWriter, Note
from panollava.losses.overlap import FEWEST
from panollava.training.module import StageModule
from panollava.training.watching import Watcher

FALL, RECOVERED = 0.7, 0.8
"""Shares of the first effective rank: below the one a collapse is told, and above the other the next may be told."""


class HealthWatch(Watcher):
    """Says at a validation what the figures alone would not: that features collapse, once for each fall, and that steps went without a loss."""

    def __init__(self, events: EventWriter) -> None:
        self.events = events
        self.first: float | None = None
        self.fallen = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        self._watch_rank(pl_module.validation.get("val_effective_rank", math.nan))
        if count := pl_module.without_overlap:
            text = f"{count} steps had fewer than {FEWEST} different panoramas, so they went without the overlap loss; a larger batch has more."
            self.events.write(Note(level="info", text=text))
            pl_module.without_overlap = 0

    def _watch_rank(self, rank: float) -> None:
        if not math.isfinite(rank):
            return
        if self.first is None:
            self.first = rank
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


def collapse(first: float, now: float) -> str:
    """What is told, and what to do about it."""
    return (
        f"The vision encoder's features collapse: their effective rank is {now:.3g}, and was {first:.3g} at the stage's first validation. "
        "Go on from an earlier checkpoint, with a lower learning rate, fewer epochs, or a higher weight of VICReg's variance and covariance."
    )
