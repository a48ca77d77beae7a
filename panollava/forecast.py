"""How long a stage will take: as long as the same work took before. Torch-free.

Nothing is concluded from other stages, whose steps cost something else.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from panollava import events
from panollava.config import RunConfig
from panollava.events import EVENTS_FILE, Progress
from panollava.rundir import stage_dir
from panollava.stages import Stage

WORK = (
    "vision_model", "language_model", "resampler", "resampler_width", "resampler_queries", "resampler_layers", "pool", "lora_r", "crop_strategy",
    "fov", "overlap", "view_count", "pitches", "cube_faces", "view_size", "csv_train", "csv_val", "image_root", "devices", "num_nodes",
    "precision", "gradient_checkpointing", "compile", "num_workers", "data_dir", "cache", "fast_decode", "overlap_loss", "overlap_loss_weight",
    "expander_width",
)  # fmt: skip
STAGE_WORK = ("batch_size", "accumulation", "max_text_length", "max_steps", "save_every_steps")
"""Settings that decide how much work an epoch is. How many epochs is taken into account."""


def work(config: Mapping[str, Any], stage: Stage) -> list[Any]:
    """Equal for stages whose steps are the same work. A config from before a setting was there has its default."""
    section = config["stages"][stage]
    return [
        *(config.get(name, RunConfig.model_fields[name].default) for name in WORK),
        *(section.get(name, 1 if name == "accumulation" else None) for name in STAGE_WORK),
    ]


def seconds_per_step(config: RunConfig, stage: Stage) -> float | None:
    """The pace of the newest training below `output_dir` that did the same work; None if there is none."""
    wanted = work(config.model_dump(mode="json"), stage)
    directories = Path(config.output_dir).glob(stage_dir("", "*", stage).name)
    found = sorted((each / EVENTS_FILE for each in directories if (each / EVENTS_FILE).is_file()), key=lambda each: each.stat().st_mtime)
    for path in reversed(found):
        kept = path.with_name("config.json")
        if kept.is_file() and work(orjson.loads(kept.read_bytes()), stage) == wanted and (paces := list(_paces(path))):
            return median(paces)
    return None


def _paces(path: Path) -> Iterator[float]:
    for _, event in events.read(path):
        if isinstance(event, Progress) and event.unit == "steps" and event.seconds_per_unit is not None:
            yield event.seconds_per_unit
