"""What watches a training: a Lightning callback that costs nothing at the hooks it has no use for, and a profiler that profiles nothing."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.profilers import PassThroughProfiler

EVERY_STEP = (
    "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
    "on_validation_batch_start", "on_validation_batch_end",
)  # fmt: skip


NOTHING = nullcontext()


class Unprofiled(PassThroughProfiler):
    """Lightning enters a profiler's context for every hook, some twenty times a step; its own that does nothing makes a new one each time."""

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]  # a generator there
        return NOTHING


class Watcher(pl.Callback):
    """Lightning enters a profiler's context for every hook of every callback that can be called, so those of each step that do nothing are None."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for hook in EVERY_STEP:
            if getattr(cls, hook) is getattr(pl.Callback, hook):
                setattr(cls, hook, None)
