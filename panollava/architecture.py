"""What a run's models look like, read from their `config.json` alone: in a local directory, or in the hub's cache. Torch-free."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.rundir import Architecture

SIGLIP_DEFAULTS = {"model_type": "siglip_vision_model", "hidden_size": 768, "num_hidden_layers": 12, "image_size": 224, "patch_size": 16}
"""transformers' defaults, which the published SigLIP configs leave out."""
VISION_TYPES = ("siglip", "siglip_vision_model")


def of(config: RunConfig) -> Architecture | None:
    """The architecture of a run; None where a model's config is not on this machine. Raises BadInput for a config that says too little."""
    vision, language = _config_json(config.vision_model), _config_json(config.language_model)
    if vision is None or language is None:
        return None
    try:
        return describe(config, SIGLIP_DEFAULTS | vision.get("vision_config", vision), language)
    except KeyError as error:
        raise BadInput(f"{config.vision_model} and {config.language_model}: one's config.json does not say its {error}.") from None


def describe(config: RunConfig, vision: Mapping[str, Any], language: Mapping[str, Any]) -> Architecture:
    """The architecture of a run whose models have these configs."""
    return Architecture(
        vision_model=config.vision_model, vision_type=vision["model_type"], vision_width=vision["hidden_size"],
        vision_layers=vision["num_hidden_layers"], image_size=config.view_size or vision["image_size"], patch_size=vision["patch_size"],
        language_model=config.language_model, language_type=language["model_type"], language_width=language["hidden_size"],
        language_layers=language["num_hidden_layers"],
        resampler=config.resampler, resampler_width=config.resampler_width or vision["hidden_size"], pool=config.pool, views=config.views,
    )  # fmt: skip


def part(model_type: str, architectures: Iterable[str]) -> str | None:
    """The setting that a model whose config.json has these names is one for; None if it can be no part of a run."""
    if model_type in VISION_TYPES:
        return "vision_model"
    return "language_model" if any(name.endswith("ForCausalLM") for name in architectures) else None


def _config_json(model: str) -> dict[str, Any] | None:
    local = Path(model) / "config.json"
    found = local if local.is_file() else _cached(model)
    if found is None:
        return None
    try:
        return dict(json.loads(found.read_bytes()))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{found}: no JSON object ({error}).") from None


def _cached(model: str) -> Path | None:
    if Path(model).is_absolute() or model.count("/") != 1:
        return None
    found = try_to_load_from_cache(model, "config.json")
    return Path(found) if isinstance(found, str) else None
