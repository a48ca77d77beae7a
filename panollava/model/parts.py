"""Load the pretrained parts by hub id or local directory, and put a model together from a config.

Everything that learns is kept in fp32; mixed precision is the trainer's business.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, SiglipVisionModel
from transformers.utils.logging import disable_progress_bar

from panollava import layouts
from panollava.architecture import describe
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.model.panollava import PanoLlava
from panollava.model.resampler import RESAMPLERS
from panollava.model.text import IMAGE
from panollava.rundir import Architecture

disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar of 50 ms per loaded model says nothing and fills the logs


@dataclass(frozen=True)
class Built:
    """A model with what is needed to feed it."""

    model: PanoLlava
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    layout: layouts.Layout
    image_tokens: int


def build(config: RunConfig, *, language: bool = True) -> Built:
    """The model a config describes, its new parts initialised from `config.seed`. Raises BadInput for models that cannot be had or used."""
    vision = _load_model(SiglipVisionModel, "vision_model", config.vision_model, vision_use_head=False)
    text_config = _load(AutoConfig, "language_model", config.language_model, dtype=None)
    tokenizer = _load(AutoTokenizer, "language_model", config.language_model, dtype=None)
    processor = _load(AutoImageProcessor, "vision_model", config.vision_model, dtype=None)
    architecture = describe(config, vision.config.to_dict(), text_config.to_dict())
    grid, rest = divmod(architecture.image_size, architecture.patch_size)
    if rest:
        raise BadInput(f"view_size is {config.view_size}, which {config.vision_model}'s patches of {architecture.patch_size} pixels do not divide.")
    if grid % config.pool:
        raise BadInput(f"pool is {config.pool}, which does not divide {config.vision_model}'s grid of {grid} x {grid} patches.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        resampler = RESAMPLERS[config.resampler](vision.config.hidden_size, architecture.resampler_width)
        projection = nn.Linear(architecture.resampler_width, text_config.hidden_size)
    model = PanoLlava(
        vision, resampler, projection, _load_model(AutoModelForCausalLM, "language_model", config.language_model) if language else None,
        pool=config.pool, image_token=int(tokenizer.convert_tokens_to_ids(IMAGE)), mean=tuple(processor.image_mean), std=tuple(processor.image_std),
    )  # fmt: skip
    return Built(model, tokenizer, architecture, layouts.layout(config), config.views * (grid // config.pool) ** 2)


def _load_model(kind: Any, field: str, name: str, **options: Any) -> Any:
    """A pretrained model with all of its weights. transformers would fill missing ones with random numbers and only warn."""
    model, info = _load(kind, field, name, output_loading_info=True, **options)
    if missing := sorted(info["missing_keys"]):
        raise BadInput(f"{field}: {name!r} lacks {len(missing)} of its tensors, such as {missing[0]}.")
    return model


def _load(kind: Any, field: str, name: str, *, dtype: torch.dtype | None = torch.float32, **options: Any) -> Any:
    """from_pretrained with an error a user can act on. transformers 5 keeps a checkpoint's own dtype unless told; bf16 masters do not learn."""
    try:
        return kind.from_pretrained(name, **options, **({"dtype": dtype} if dtype else {}))
    except (OSError, ValueError) as error:
        where = "in that directory" if Path(name).is_dir() else "on the hub, in its cache, or as a local directory"
        raise BadInput(f"{field}: no usable model {name!r} {where}: {str(error).splitlines()[0]}") from error
