"""A model put together from the configs of its parts alone, its weights to be filled in: no hub, no original directories."""

from typing import TYPE_CHECKING, Any

import transformers
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig

from panollava import resamplers
from panollava.encoders import ENCODERS
from panollava.model.panollava import PanoLlava
from panollava.model.vision import drop_unused

if TYPE_CHECKING:
    from panollava.hf.config import PanoLlavaConfig


def assemble(config: "PanoLlavaConfig") -> PanoLlava:
    """The parts with whatever weights their classes begin with."""
    language: Any = AutoModelForCausalLM.from_config(config.text_config)  # type: ignore[no-untyped-call]
    language.generation_config = GenerationConfig(eos_token_id=list(config.end_token_ids) or None)  # type: ignore[no-untyped-call]
    resampler = resamplers.make(config.run_config(), config.sizes())
    projection = nn.Linear(resampler.width, language.config.hidden_size)
    return PanoLlava(
        _vision(config.vision_config), resampler, projection, language,
        image_token=config.image_token_id, mean=tuple(config.image_mean), std=tuple(config.image_std),
    )  # fmt: skip


def _vision(config: Any) -> nn.Module:
    encoder = ENCODERS[config.model_type]
    # What a family does not keep in its config, its class is told.
    options = {name: value for name, value in encoder.options.items() if not hasattr(config, name)}
    vision: nn.Module = getattr(transformers, encoder.loader)._from_config(config, **options)
    drop_unused(vision)
    return vision
