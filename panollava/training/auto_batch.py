"""Micro-batches that fit into memory: with `auto_batch` those that do not are halved, and what they were to do is done again, from there on.

One device alone: another rank would wait for the gradients of the one that has run out, and config refuses that.
"""

import logging
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from panollava.config import RunConfig
from panollava.errors import OutOfMemory
from panollava.model.panollava import Batch
from panollava.stages import RECIPES, Stage
from panollava.training.out_of_memory import free, told
from panollava.training.steps import Step, in_parts

log = logging.getLogger("panollava")
Result = TypeVar("Result")


class AutoBatch:
    """`config` is that of the run with the accumulation in force."""

    def __init__(self, config: RunConfig, stage: Stage) -> None:
        self.config, self.stage = config, stage
        self.validation_size: float = math.inf
        self.warn: Callable[[str], None] = log.warning

    def step(self, step: Step, number: int, work: Callable[[Step], Result], undo: Callable[[], None]) -> Result:
        """What `work` makes of a step, in micro-batches of today's size. It is done anew, with the same random numbers, after `undo`."""
        samples = None if RECIPES[self.stage].needs_text else sum(len(batch.image_index) for batch in step.batches)
        while True:
            random = _random_numbers() if self.config.auto_batch else ()
            try:
                with told(self.config, self.stage, "step", step=number, samples=samples):
                    return work(step.in_parts(self.config.stages[self.stage].micro_batch) if self.config.auto_batch else step)
            except OutOfMemory as error:
                accumulation = error.suggestion.get("accumulation")
                if not self.config.auto_batch or not isinstance(accumulation, int):
                    raise
            undo()
            free()
            _set_random_numbers(random)
            self._halve(accumulation, number)

    def validation(self, batch: Batch, number: int, work: Callable[[Batch], Result]) -> list[Result]:
        """What `work` makes of a batch or its parts. Not where the loss is one across its panoramas: other numbers would come out."""
        while True:
            try:
                with told(self.config, self.stage, "validation", step=number):
                    return [work(part) for part in in_parts(batch, self.validation_size)]
            except OutOfMemory:
                size = min(len(batch.image_index), self.validation_size)
                if not self.config.auto_batch or not RECIPES[self.stage].needs_text or size == 1:
                    raise
            free()
            self.validation_size = -(-size // 2)
            self.warn(
                f"validation at step {number}: out of memory with batches of {size:.0f}; going on with {self.validation_size:.0f}. val_loss stays."
            )

    def _halve(self, accumulation: int, number: int) -> None:
        tried = self.config.stages[self.stage].micro_batch
        self.config = self.config.with_accumulation(self.stage, accumulation)
        size = self.config.stages[self.stage].micro_batch
        text = f"step {number}: out of memory with micro-batches of {tried}; going on with accumulation {accumulation} (micro-batches of {size})"
        across = f"; the overlap loss takes its statistics across {size} panoramas from here on"
        self.warn(text + (across if self.config.overlap_loss in self.config.losses(self.stage) else "") + ".")


def _random_numbers() -> tuple[Tensor, ...]:
    """Where torch's stand; dropout draws no others."""
    return (torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else []))


def _set_random_numbers(state: tuple[Tensor, ...]) -> None:
    host, *device = state
    torch.set_rng_state(host)
    for each in device:
        torch.cuda.set_rng_state(each)
