"""Real trainings of the demo preset, in which every step of ours has another way's beside it. What is measured: `training.py`.

Times are the processor's own: nothing here waits for anything, and other processes would take a share of the wall clock's.
"""

import copy
import math
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer import call
from torch import Tensor

from panollava import events
from panollava.config import RunConfig, merge, parse
from panollava.data.make_demo import make_demo
from panollava.events import Metric
from panollava.model.panollava import Batch
from panollava.presets import PRESETS
from panollava.stages import Stage
from panollava.training import fit
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.stop import StopRequest
from tools.bench.lines import Round

call_callbacks = call._call_callback_hooks
QUESTIONS = 4
"""On each training panorama of the demo data."""


class _NoStop(StopRequest):
    """Leaves Ctrl-C to the benchmark."""

    def listen(self) -> None:
        pass


class Measuring(StageModule):
    """Notes the time between the ends of two steps. Those with a validation between them are left out."""

    steps_a_pair = 1

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.rounds: list[Round] = []
        self._ended: float | None = None

    def on_train_epoch_start(self) -> None:
        self._ended = None

    def on_train_batch_end(self, *_: Any) -> None:
        """The last thing in a step: Lightning asks the callbacks first."""
        if self._ended is not None:
            self.note(1000 * (process_time() - self._ended))
        self.between()
        self._ended = process_time()

    def note(self, step: float) -> None:
        """Milliseconds of a whole step of the loop."""
        raise NotImplementedError

    def between(self) -> None:
        """Whatever belongs to no step of ours."""
        raise NotImplementedError


class WatchedByTurns(Measuring):
    """The time that Lightning takes to call its callbacks, which are ours in every other step, else none. The step itself is next to nothing.

    Between two whole steps of a busy machine the difference of 50 µs is lost: they take twice as long whenever another process has had the
    caches. The hooks are over before anybody comes in between, and on a quiet machine both say the same.
    """

    steps_a_pair, in_hooks = 2, 0.0

    def on_train_start(self) -> None:
        self.watching, self._watched = list(self.trainer.callbacks), math.nan

    def on_validation_start(self) -> None:
        self.trainer.callbacks = self.watching

    def measure(self, batch: Batch) -> tuple[Tensor, int, dict[str, Tensor]]:
        return self.model.projection.weight.square().mean(), 1, {}

    def note(self, step: float) -> None:
        if self.trainer.callbacks:
            self._watched = self.in_hooks
        elif not math.isnan(self._watched):
            self.rounds.append(Round(self._watched, self.in_hooks))

    def between(self) -> None:
        self.trainer.callbacks = [] if self.trainer.callbacks else self.watching
        self.in_hooks = 0.0


def call_timed(trainer: pl.Trainer, *args: Any, **options: Any) -> None:
    """Lightning's way to call a hook of all callbacks."""
    start = perf_counter()
    call_callbacks(trainer, *args, **options)
    taken = perf_counter() - start
    if isinstance(trainer.lightning_module, WatchedByTurns) and trainer.training:
        trainer.lightning_module.in_hooks += 1000 * taken


class BesideBareLoop(Measuring):
    """After every step, a loop in plain PyTorch takes the same step with a copy of the model."""

    def on_train_start(self) -> None:
        self.bare = BareLoop(self)

    def measure(self, batch: Batch) -> tuple[Tensor, int, dict[str, Tensor]]:
        self.batch = batch
        return super().measure(batch)

    def note(self, step: float) -> None:
        self._step = step

    def between(self) -> None:
        """Raises ValueError if the two do not compute the same."""
        is_measured, start = self._ended is not None, process_time()
        loss = self.bare.step(self.batch)
        taken = 1000 * (process_time() - start)
        if not math.isclose(loss, self.values["train_loss"], rel_tol=1e-5):
            raise ValueError(f"Step {self.step}: the loss is {self.values['train_loss']} in our loop and {loss} in the bare one.")
        if is_measured:
            self.rounds.append(Round(self._step, taken))


class BareLoop:
    """What anybody would write: forward, backward, clip, step. The optimizer is ours, with its settings."""

    def __init__(self, module: StageModule) -> None:
        copies: dict[int, Any] = {}
        self.model, self.longest = copy.deepcopy(module.model, copies), module.settings.grad_clip
        ours = module.trainer.optimizers[0]
        groups = [group | {"params": [copies[id(parameter)] for parameter in group["params"]]} for group in ours.param_groups]
        self.optimizer = type(ours)(groups)
        self.learning = [parameter for group in groups for parameter in group["params"]]

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        loss = self.model(batch).mean
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learning, self.longest)
        self.optimizer.step()
        return loss.item()


def rounds_of(kind: type[Measuring], pairs: int, batch_size: int) -> list[Round]:
    """A training of stage finetune, the learning rate constant, with enough steps for so many pairs."""
    made: list[Measuring] = []

    def make(*args: Any) -> Measuring:
        made.append(kind(*args))
        return made[-1]

    torch.set_num_threads(1)
    wanted = pairs * kind.steps_a_pair
    steps = wanted + wanted // 4 + 2
    panoramas = min(100, -(-steps * batch_size // QUESTIONS))
    with TemporaryDirectory() as directory, mock.patch.object(fit, "StageModule", make), mock.patch.object(call, "_call_callback_hooks", call_timed):
        config = demo(Path(directory), panoramas, steps=steps, batch_size=batch_size, cache_dir=f"{directory}/cache")
        train(config, Path(directory) / "run")
    return made[0].rounds[:pairs]


def demo(directory: Path, panoramas: int, *, steps: int, batch_size: int, **settings: Any) -> RunConfig:
    """The demo preset on little data, for so many steps."""
    make_demo(directory / "data", train=panoramas, valid=1, test=1)
    finetune = {"epochs": steps, "max_steps": steps, "batch_size": batch_size, "warmup_ratio": 0.0, "min_lr_ratio": 1.0}
    values = {"data_dir": str(directory / "data"), "stage": "finetune", "stages": {"finetune": finetune}, "example_predictions": 1, **settings}
    return parse(merge(PRESETS["demo"], values))


def train(config: RunConfig, directory: Path) -> None:
    fit.train_stage(StageJob(config, Stage.finetune, directory), _NoStop(directory))


def speeds(config: RunConfig, directory: Path) -> dict[str, float]:
    """The medians of what the trainer says of its own steps; the first one of a process or a data loader is slower and left out."""
    torch.set_num_threads(1)
    train(config, directory)
    said = [event.values for _, event in events.read(directory / events.EVENTS_FILE) if isinstance(event, Metric) and "data_wait" in event.values]
    return {name: median(step[name] for step in said[1:]) for name in said[-1]}
