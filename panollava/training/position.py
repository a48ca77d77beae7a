"""Where a training stands, and all that decides how it goes on: what a checkpoint holds beside the weights, in plain types."""

import math
import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from panollava import ranks
from panollava.training.module import StageModule

STATE = "panollava"
"""Key of our own part of a checkpoint."""


class Position:
    """`batch` steps of epoch `epoch` are done. An epoch is over when its end has been validated; one that max_steps cut can be gone on with."""

    def __init__(self) -> None:
        self.epoch, self.batch = 0, 0
        self.is_validated = False
        """Whether the model has been validated as it stands, in an epoch that max_steps cut."""
        self.best_file: str | None = None
        self.best_loss = math.inf
        self.worse = 0
        """Validations in a row that did not bring a lower loss."""
        self.is_over = False
        """Whether the stage has ended before its last epoch, for want of a lower loss."""
        self.regular: list[str] = []
        """The step checkpoints that make room for newer ones."""

    def state(self) -> dict[str, Any]:
        return self.__dict__ | {"regular": list(self.regular)}

    def restore(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def give_more(self, patience: int | None) -> None:
        """A stage that had ended early goes on where it is given more patience than it had."""
        self.is_over = self.is_over and patience is not None and self.worse >= patience

    def step(self) -> None:
        self.batch += 1
        self.is_validated = False

    def end_epoch(self, name: str, loss: float, patience: int | None, *, is_whole: bool) -> bool:
        """The epoch's end has been validated; True if `name`, its checkpoint, is the best so far."""
        better = math.isfinite(loss) and loss < self.best_loss
        if better:
            self.best_file, self.best_loss = name, loss
        self.worse = 0 if better else self.worse + 1
        self.is_over = patience is not None and self.worse >= patience
        self.is_validated = not is_whole
        if is_whole:
            self.epoch, self.batch = self.epoch + 1, 0
        return better

    def why_over(self) -> str:
        return f"Ended early: {self.worse} validations in a row brought no val_loss below {self.best_loss:.4g}, that of {self.best_file}."

    def push(self, name: str, keep: int) -> list[str]:
        """One more regular step checkpoint; those that make room for it."""
        names = [*(each for each in self.regular if each != name), name]
        removed, self.regular = names[:-keep], names[-keep:]
        return removed


def state_of(module: StageModule, position: Position) -> dict[str, Any]:
    """Called on all ranks: each has random numbers of its own."""
    return {
        "stage": str(module.stage), "step": module.step, "not_finite": module.not_finite, "left_out": module.left_out, "position": position.state(),
        "scaler": module.scaler.state_dict(), "random": ranks.gathered(_random_state()),
    }  # fmt: skip


def restore(trainer: pl.Trainer, module: StageModule, checkpoint: dict[str, Any]) -> None:
    """Optimizer, loss scale and random numbers as they were. The weights and the position are in place already."""
    state = checkpoint[STATE]
    trainer.optimizers[0].load_state_dict(checkpoint["optimizer_states"][0])
    module.scaler.load_state_dict(state["scaler"])
    module.not_finite, module.left_out = state["not_finite"], state.get("left_out", 0)
    if len(state["random"]) == ranks.count():  # other ranks draw other numbers; there is no going on as if nothing had changed
        _set_random_state(state["random"][ranks.rank()])


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(), "python": _plain(random.getstate()), "numpy": [name, np.asarray(keys).tolist(), *rest],
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }  # fmt: skip


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(_tuples(state["python"]))
    np.random.set_state(tuple(state["numpy"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
