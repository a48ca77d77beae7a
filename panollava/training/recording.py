"""What a training says while it works: metric and progress events, and lines a person reads."""

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from statistics import median
from typing import Any

import pytorch_lightning as pl

from panollava.events import Progress, Say
from panollava.training.devices import memory_held
from panollava.training.module import StageModule
from panollava.training.throughput import Throughput
from panollava.training.watching import Watcher

Sink = Callable[[int, dict[str, float]], None]
PROGRESS_SECONDS, LINE_SECONDS = 0.5, 5.0
FIRST_STEPS = 5
"""The estimate of the time left waits for so many steps."""


class Recorder(Watcher):
    """Turns every step into a metric event, some into progress events, and few into a printed line."""

    def __init__(self, events: Say, say: Callable[[str], None], sinks: list[Sink], steps_per_epoch: int) -> None:
        self.events, self.say, self.sinks = events, say, sinks
        self.steps_per_epoch = steps_per_epoch
        self._throughput: Throughput | None = None
        self._step_seconds: deque[float] = deque(maxlen=50)
        self._step_began = self._data_came = time.monotonic()
        self._told = self._printed = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        self._throughput = Throughput(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step_began = time.monotonic()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self._data_came = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, StageModule) and self._throughput is not None
        now = time.monotonic()
        seconds, waited = now - self._step_began, self._data_came - self._step_began
        self._step_began = now
        self._step_seconds.append(seconds)
        self._record(pl_module, {**pl_module.values, "data_wait": waited / seconds, **self._throughput.rates(batch, seconds)})
        self._progress(pl_module, now)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        self._record(pl_module, pl_module.validation)
        self.say(f"validation at step {pl_module.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in pl_module.validation.items()))
        self._step_began = time.monotonic()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        self._told = 0.0
        self._progress(pl_module, time.monotonic())

    def _record(self, module: StageModule, values: dict[str, float]) -> None:
        self.events.metric(module.step, module.step / self.steps_per_epoch, values)
        for sink in self.sinks:
            sink(module.step, values)

    def _progress(self, module: StageModule, now: float) -> None:
        if now - self._told < PROGRESS_SECONDS and module.step < module.steps:
            return
        self._told = now
        pace = median(self._step_seconds) if len(self._step_seconds) >= FIRST_STEPS else None
        left = None if pace is None else pace * (module.steps - module.step)
        self.events.write(
            Progress(
                done=module.step,
                total=module.steps,
                unit="steps",
                epoch=module.step / self.steps_per_epoch,
                seconds_per_unit=pace,
                eta_seconds=left,
                device_memory=memory_held(module.device),
            )
        )
        if now - self._printed >= LINE_SECONDS or module.step == module.steps:
            self._printed = now
            ahead = "" if left is None else f", {timedelta(seconds=round(left))} left"
            self.say(f"step {module.step}/{module.steps}, loss {module.values.get('train_loss', float('nan')):.4f}{ahead}")
