"""What a run will take, stage by stage, and what speaks against it, before anything is loaded. Torch-free.

The figures come from the models' config files and the tables' rows. What is not known is None: a model that is not on this machine, a pace
that nobody has measured.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from panollava import budget, flops, layouts, views
from panollava.architecture import Outline
from panollava.config import RunConfig
from panollava.data.table import scan
from panollava.decoders import DECODERS
from panollava.errors import BadInput
from panollava.estimate import Memory, Micro, memory
from panollava.flops import Language, Vision
from panollava.schedule import Schedule
from panollava.stages import RECIPES, Stage
from panollava.template import SHORTEST_QUERY

Pace = Callable[[RunConfig, Stage, int], float | None]
"""Seconds that so many steps of a stage take; None while nothing tells."""
DRIVER = Path("/proc/driver/nvidia/gpus")


class Part(BaseModel):
    """A part of the model; None where nothing says how large it is."""

    parameters: int | None
    learns: bool


class StageFigures(BaseModel):
    """What one stage will take."""

    stage: Stage
    loss: str = Field(description="What it minimises.")
    parts: dict[str, Part] = Field(description="Empty while the models are not on this machine.")
    learning: int | None = Field(description="Parameters that learn.")
    parameters: int | None = Field(description="Parameters in all.")
    views: int
    image_tokens: int | None = Field(description="Of every panorama.")
    text_tokens: int | None = Field(description="Of every sample at most, the language model's own turns included; null in stage vision.")
    turn_tokens: int | None = Field(description="Of these, what the language model's own turns take.")
    samples: int | None = Field(description="Rows of the training table; in stage vision its different images.")
    steps_per_epoch: int | None
    steps: int | None
    micro_batch: int = Field(description="Samples that one device computes at once.")
    accumulation: int
    devices: int
    device: str = Field(description="GPU or CPU.")
    memory: Memory | None = Field(description="Bytes on each device at the peak of a step, an estimate.")
    flops_per_sample: float | None
    seconds: float | None = Field(description="As long as the same work took before.")


@dataclass(frozen=True)
class Counts:
    """Usable rows of a training table and its different images."""

    rows: int
    images: int

    @classmethod
    def of(cls, csvs: Sequence[Path], need_annotation: bool) -> "Counts":
        """Raises BadInput for a file that is no table."""
        urls = [row.url for csv in csvs for row in scan(csv, need_annotation)[0]]
        return cls(len(urls), len(set(urls)))


def figures(config: RunConfig, outline: Outline | None, counts: Counts | None, pace: Pace) -> list[StageFigures]:
    """Of every stage that is trained. The config makes sense, as `RunConfig.check` has it."""
    return [_Figures(config, stage, outline, counts).all(pace) for stage in config.stage]


@dataclass(frozen=True)
class _Figures:
    config: RunConfig
    stage: Stage
    outline: Outline | None
    counts: Counts | None

    def all(self, pace: Pace) -> StageFigures:
        config, settings, parts = self.config, self.config.stages[self.stage], self.parts()
        schedule = self.schedule()
        return StageFigures(
            stage=self.stage,
            loss=config.loss(self.stage),
            parts=parts,
            learning=_sum(part for part in parts.values() if part.learns) if parts else None,
            parameters=_sum(parts.values()) if parts else None,
            views=config.views,
            image_tokens=self.outline.image_tokens if self.outline else None,
            text_tokens=settings.max_text_length if self.needs_text else None,
            turn_tokens=self.turns if self.needs_text else None,
            samples=schedule.samples if schedule else None,
            steps_per_epoch=schedule.steps_per_epoch if schedule else None,
            steps=schedule.steps if schedule else None,
            micro_batch=self.micro_batch,
            accumulation=settings.accumulation,
            devices=config.devices * config.num_nodes,
            device=device(),
            memory=self.memory(parts),
            flops_per_sample=self.flops(),
            seconds=pace(config, self.stage, schedule.steps) if schedule else None,
        )

    @property
    def needs_text(self) -> bool:
        return RECIPES[self.stage].needs_text

    @property
    def has_overlap(self) -> bool:
        return self.config.overlap_loss in self.config.losses(self.stage)

    @property
    def micro_batch(self) -> int:
        settings = self.config.stages[self.stage]
        return settings.batch_size // settings.accumulation // (self.config.devices * self.config.num_nodes)

    @property
    def turns(self) -> int | None:
        """None also for a template or tokenizer that cannot be used, which is a refusal of its own."""
        try:
            return budget.around(self.config.language_model)
        except BadInput:
            return None

    @property
    def supervised(self) -> int:
        """Tokens of an answer, where a query takes as few as it can: the most there can be."""
        return max(1, self.config.stages[self.stage].max_text_length - (self.turns or 0) - SHORTEST_QUERY)

    def parts(self) -> dict[str, Part]:
        if self.outline is None:
            return {}
        sizes = dict(self.outline.parameters)
        if not self.needs_text:
            del sizes["language"]
        if self.stage is not Stage.finetune or not self.config.lora_r:
            del sizes["lora"]
        recipe, width = RECIPES[self.stage], self.config.expander_width
        if self.has_overlap:
            sizes["expander"] = (self.outline.architecture.vision_width + 1) * width + 2 * width + (width + 1) * width
        learns = recipe.trains | recipe.optional | {"expander"}
        return {name: Part(parameters=count, learns=name in learns) for name, count in sizes.items()}

    def schedule(self) -> Schedule | None:
        if self.counts is None:
            return None
        settings = self.config.stages[self.stage]
        samples = self.counts.rows if self.needs_text else self.counts.images
        return Schedule(samples, settings.batch_size, settings.epochs, self.config.seed, settings.max_steps, drop_last=not self.needs_text)

    def memory(self, parts: dict[str, Part]) -> Memory | None:
        if self.outline is None or (self.needs_text and not self._is_known):
            return None
        text = self.config.stages[self.stage].max_text_length if self.needs_text else 0
        sizes = {name: part.parameters or 0 for name, part in parts.items()}
        learns = {name for name, part in parts.items() if part.learns}
        micro = Micro(self.micro_batch, text, self.supervised if self.needs_text else 0, self._pairs if self.has_overlap else 0)
        return memory(self.config, self.stage, self.outline, micro, sizes, learns, narrow(self.config))

    def flops(self) -> float | None:
        if self.outline is None or not self._is_known:
            return None
        at, tokens = self.outline.architecture, self.outline.image_tokens + self.config.stages[self.stage].max_text_length
        vision, language = Vision.of(self.outline.tower, at.image_size, at.views), Language.of(self.outline.language)
        return flops.per_sample(self.stage, vision, language, tokens, self.supervised)

    @property
    def _is_known(self) -> bool:
        return self.outline is not None and self.outline.language["model_type"] in DECODERS and self.outline.parameters["language"] is not None

    @property
    def _pairs(self) -> int:
        assert self.outline is not None
        at = self.outline.architecture
        return shared_cells(self.config, at.image_size // at.patch_size)


def shared_cells(config: RunConfig, grid: int) -> int:
    """Cells of all views that a neighbour sees too, in both directions."""
    layout = layouts.layout(config)
    pairs = {pair for a, b in layout.neighbours for pair in ((a, b), (b, a))}
    return sum(int(views.correspond(layout.views[b], layout.views[a], grid)[1].sum()) for a, b in pairs)


def device() -> str:
    """What a training on this machine would use, as far as can be told without torch."""
    return "GPU" if DRIVER.is_dir() else "CPU"


def narrow(config: RunConfig) -> int:
    """Bytes of a number in matrix products."""
    return 4 if config.precision == "fp32" or (config.precision == "auto" and device() == "CPU") else 2


def _sum(parts: Iterable[Part]) -> int | None:
    counts = [part.parameters for part in parts]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
