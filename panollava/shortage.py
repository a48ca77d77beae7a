"""What to change in a training that does not fit into memory: the settings that need less, chosen from those at hand. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from panollava.config import RunConfig, StageConfig
from panollava.config.run import LEAST_MICRO_BATCH
from panollava.resamplers import POOL, RESAMPLERS
from panollava.stages import RECIPES, Stage

Work = Literal["step", "optimizer", "validation", "features", "examples", "rest"]
DOING: dict[Work, str] = {
    "step": "in step {step} (micro-batches of {size})",
    "optimizer": "while the optimizer took step {step}: it keeps two numbers for each weight that learns, whatever the batch",
    "validation": "in the validation at step {step}",
    "features": "while features of the frozen vision encoder were computed for the cache",
    "examples": "while example predictions were decoded at step {step}",
    "rest": "outside of a step",
}
VIEWS = "Fewer or smaller views (--overlap, --view-size) need less too, in a new run."
MODEL = "A smaller model needs less."
BESIDES: dict[Work, str] = {"step": VIEWS, "optimizer": MODEL, "validation": VIEWS, "features": VIEWS, "examples": VIEWS, "rest": MODEL}
ELSEWHERE = "Other programs on this machine may hold what is missing."


@dataclass(frozen=True)
class Change:
    """A setting that needs less memory, by its name on the command line, and what else comes with it."""

    name: str
    value: bool | int | str
    remark: str

    def __str__(self) -> str:
        value = "" if self.value is True else f" {self.value}"
        return f"--{self.name.replace('_', '-')}{value} ({self.remark})"


@dataclass(frozen=True)
class Shortage:
    """The settings in force where memory ran out, and for what it was wanted."""

    config: RunConfig
    stage: Stage
    work: Work
    step: int = 0
    samples: int | None = None
    """Panoramas in a step of stage vision: fewer than batch_size where the data set has fewer."""
    narrower: str | None = None
    """A precision that needs less than the one in force."""
    elsewhere: bool = False
    """Whether it was the machine's memory, and the model computes on a device with its own."""

    def message(self, place: str) -> str:
        said = f"Out of memory on {place} {DOING[self.work].format(step=self.step, size=self.settings.micro_batch)}."
        changes = self.changes()
        advice = f" Set {'; or '.join(map(str, changes))}." if changes else ""
        return f"{said}{advice} {ELSEWHERE if self.elsewhere else BESIDES[self.work]}"

    def changes(self) -> list[Change]:
        """What would help, the first thing first."""
        ways = (_workers,) if self.elsewhere else WAYS[self.work]
        return [change for way in ways if (change := way(self)) is not None]

    @property
    def settings(self) -> StageConfig:
        return self.config.stages[self.stage]

    @property
    def devices(self) -> int:
        return self.config.devices * self.config.num_nodes

    @property
    def has_statistics(self) -> bool:
        """Whether the stage has a loss over the panoramas of a micro-batch, so that these may not be too few."""
        return self.config.overlap_loss in self.config.losses(self.stage)

    def halved(self) -> int | None:
        """The accumulation whose micro-batches are half as large, or as near to that as a batch divides; None where there is none.

        A multiple of the one in force, so that each micro-batch there is can be divided by itself.
        """
        size, now = self.settings.batch_size // self.devices, self.settings.accumulation
        return next((more for more in range(2 * now, size + 1, now) if size % more == 0 and self._is_enough(self.settings.batch_size // more)), None)

    def _is_enough(self, micro_batch: int) -> bool:
        """A data set smaller than a batch makes a last micro-batch that is smaller still."""
        whole = self.samples is None or self.samples >= self.settings.batch_size
        return not self.has_statistics or (whole and micro_batch >= LEAST_MICRO_BATCH)

    def smaller_batch(self) -> int | None:
        """The batch_size of half the samples, or as near to that as they divide and the loss allows; None where there is none."""
        accumulation, batch = self.settings.accumulation, self.settings.batch_size
        now = min(self.samples or batch, batch) // accumulation
        wanted = max(LEAST_MICRO_BATCH if self.has_statistics else 1, -(-now // 2))
        wanted = -(-wanted // self.devices) * self.devices
        return wanted * accumulation if wanted < now else None


def _accumulation(shortage: Shortage) -> Change | None:
    if (more := shortage.halved()) is None:
        return None
    batch = shortage.settings.batch_size
    across = f", and the overlap loss across {batch // more} panoramas, in a new run" if shortage.has_statistics else ""
    return Change("accumulation", more, f"micro-batches of {batch // more}, the same batch of {batch}{across}")


def _auto_batch(shortage: Shortage) -> Change | None:
    config = shortage.config
    helps = shortage.halved() is not None if shortage.work == "step" else RECIPES[shortage.stage].needs_text
    if config.auto_batch or not helps or shortage.devices > 1 or config.strategy == "ddp":
        return None
    return Change("auto_batch", True, "it does that by itself" if shortage.work == "step" else "it halves the batches of a validation too")


def _batch_size(shortage: Shortage) -> Change | None:
    """Changes what is learned, so only where accumulation cannot help."""
    if (smaller := shortage.smaller_batch()) is None or (shortage.work == "step" and shortage.halved() is not None):
        return None
    why = f"; the overlap loss takes its statistics across a micro-batch, which needs {LEAST_MICRO_BATCH}" if shortage.has_statistics else ""
    return Change("batch_size", smaller, f"in a new run{why}")


def _recompute(shortage: Shortage) -> Change | None:
    return None if shortage.config.gradient_checkpointing else Change("gradient_checkpointing", True, "a third more time")


def _precision(shortage: Shortage) -> Change | None:
    return Change("precision", shortage.narrower, "activations half as large") if shortage.narrower else None


def _pool(shortage: Shortage) -> Change | None:
    pool = shortage.config.pool
    if not RECIPES[shortage.stage].needs_text or POOL not in RESAMPLERS[shortage.config.resampler].options or pool == 4:
        return None
    return Change("pool", 2 * pool, "a quarter of the image tokens, in a new run")


def _fused(shortage: Shortage) -> Change | None:
    return None if shortage.config.fused_adamw else Change("fused_adamw", True, "it makes no copies on its way")


def _examples(shortage: Shortage) -> Change | None:
    asked = min(shortage.config.example_predictions, shortage.settings.batch_size)
    return Change("example_predictions", asked // 2, "so many questions are answered at once")


def _views_alone(_: Shortage) -> Change | None:
    return Change("cache", "views", "the encoder then sees the panoramas of one micro-batch at a time")


def _workers(shortage: Shortage) -> Change | None:
    workers = shortage.config.num_workers
    return Change("num_workers", workers // 2, "each process that loads images holds some of them") if workers else None


WAYS: dict[Work, tuple[Callable[[Shortage], Change | None], ...]] = {
    "step": (_accumulation, _auto_batch, _batch_size, _recompute, _precision, _pool),
    "optimizer": (_fused,),
    "validation": (_auto_batch, _batch_size, _precision, _pool),
    "features": (_views_alone, _precision),
    "examples": (_examples, _precision, _pool),
    "rest": (_workers,),
}
"""What helps where, the first thing first."""


def lighter(suggestion: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of what was suggested, what leaves the model as it is; what its checkpoints hold cannot be changed in the middle of a chain."""
    return {name: value for name, value in (suggestion or {}).items() if name != POOL}


def goes_on(config: RunConfig, stage: Stage, settings: Mapping[str, Any]) -> bool:
    """Whether a stage can go on from its checkpoints with other settings, or must begin again (`panollava.training.resuming`)."""
    return "batch_size" not in settings and ("accumulation" not in settings or config.overlap_loss not in config.losses(stage))
