"""What a run's models look like, read from their config files alone: in a local directory, or in the hub's cache. Torch-free."""

import json
import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from panollava import decoders, encoders, resamplers
from panollava.config import RunConfig
from panollava.encoders import ENCODERS
from panollava.errors import BadInput
from panollava.resamplers import RESAMPLERS, Sizes
from panollava.rundir import Architecture

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Outline:
    """A run's model before it is loaded.

    `parameters` are by part; None where the language model's family is unknown, and its weights are not here to be counted,
    or where its config does not say its sizes.
    """

    architecture: Architecture
    image_tokens: int
    parameters: dict[str, int | None]
    tower: Json
    """The vision encoder's config with its family's defaults."""
    language: Json
    """The language model's config."""


def of(config: RunConfig) -> Architecture | None:
    """The architecture of a run; None where a model's config is not on this machine. Raises BadInput for a config that says too little."""
    vision, language = _json(config.vision_model, "config.json"), _json(config.language_model, "config.json")
    if vision is None or language is None:
        return None
    return describe(config, vision, _json(config.vision_model, PROCESSOR) or {}, language)


def image_tokens(config: RunConfig) -> int | None:
    """Image tokens of every panorama; None where they depend on a vision encoder whose config is not on this machine. Raises BadInput."""
    vision = _json(config.vision_model, "config.json")
    if vision is None:
        return config.resampler_queries if resamplers.QUERIES in RESAMPLERS[config.resampler].options else None
    tower = _tower(config, vision, _json(config.vision_model, PROCESSOR) or {})
    at = Sizes(config.views, tower["image_size"] // tower["patch_size"], tower["hidden_size"])
    resamplers.check(config, at)
    return resamplers.image_tokens(config, at)


def outline(config: RunConfig) -> Outline | None:
    """All that is known of a run's model without torch; None where a model's config is not on this machine. Raises BadInput."""
    vision, language = _json(config.vision_model, "config.json"), _json(config.language_model, "config.json")
    architecture = of(config)
    if architecture is None or vision is None or language is None:
        return None
    at = sizes(architecture)
    resamplers.check(config, at)
    try:
        spoken = decoders.parameters(language) or _stored(config.language_model)
        adapters = decoders.adapters(language, config.lora_r, config.lora_targets)
    except KeyError:
        spoken = adapters = None  # a config that leaves sizes to its class
    return Outline(
        architecture,
        resamplers.image_tokens(config, at),
        {
            "vision": ENCODERS[vision["model_type"]].parameters(encoders.vision_config(vision)),
            "resampler": resamplers.parameters(config, at),
            "projection": (architecture.resampler_width + 1) * architecture.language_width,
            "language": spoken,
            "lora": adapters,
        },
        encoders.vision_config(vision),
        language,
    )


def sizes(architecture: Architecture) -> Sizes:
    """What the resampler is given."""
    return Sizes(architecture.views, architecture.image_size // architecture.patch_size, architecture.vision_width)


def describe(config: RunConfig, vision: Json, processor: Json, language: Json) -> Architecture:
    """The architecture of a run whose models and image processor have these configs. Raises BadInput for a config that says too little."""
    tower = _tower(config, vision, processor)
    options = RESAMPLERS[config.resampler].options
    try:
        return Architecture(
            vision_model=config.vision_model, vision_type=tower["model_type"], vision_width=tower["hidden_size"],
            vision_layers=tower["num_hidden_layers"], image_size=tower["image_size"], patch_size=tower["patch_size"],
            language_model=config.language_model, language_type=language["model_type"], language_width=language["hidden_size"],
            language_layers=language["num_hidden_layers"],
            resampler=config.resampler, resampler_width=(resamplers.WIDTH in options and config.resampler_width) or tower["hidden_size"],
            pool=config.pool if resamplers.POOL in options else 1, views=config.views,
            **({"lora_r": config.lora_r, "lora_alpha": config.lora_scale, "lora_targets": config.lora_targets} if config.lora_r else {}),
            **{option: getattr(config, option) for option in (resamplers.QUERIES, resamplers.LAYERS, resamplers.HEADS) if option in options},
        )  # fmt: skip
    except KeyError as error:
        raise _unfit("language_model", f"{config.language_model}: its config.json does not say its {error}.") from None


def _tower(config: RunConfig, vision: Json, processor: Json) -> dict[str, Any]:
    """The vision encoder's config, with the side of the views that it is given: the run's, or else what its image processor makes."""
    kind = vision.get("model_type")
    if kind is None:
        raise _unfit("vision_model", f"{config.vision_model}: its config.json does not say its 'model_type'.")
    if kind not in ENCODERS:
        raise _unfit("vision_model", f"{config.vision_model} is of type {kind}, and the vision encoders are of {', '.join(ENCODERS)}.")
    tower = encoders.vision_config(vision)
    if config.view_size and config.view_size % tower["patch_size"]:
        patches = f"{config.vision_model}'s patches of {tower['patch_size']} pixels"
        raise BadInput(f"view_size is {config.view_size}, which {patches} do not divide.", [("view_size", f"{patches} do not divide it.")])
    return tower | {"image_size": config.view_size or encoders.view_size(processor) or tower["image_size"]}


def _unfit(field: str, why: str) -> BadInput:
    return BadInput(f"{field}: {why}", [(field, why)])


def part(model_type: str, architectures: Iterable[str]) -> str | None:
    """The setting that a model whose config.json has these names is one for; None if it can be no part of a run."""
    if model_type in ENCODERS:
        return "vision_model"
    return "language_model" if any(name.endswith("ForCausalLM") for name in architectures) else None


def is_directory(model: str) -> bool:
    """Whether a model's name means a directory of this machine: it reads like a path, or there is one of that name."""
    return model.startswith(("/", ".", "~")) or os.path.isdir(model)


def found(model: str, name: str) -> Path | None:
    """A file of a model's: in its directory, or in the hub's cache. None where it is not on this machine."""
    local = Path(model) / name
    return local if local.is_file() else _cached(model, name)


PROCESSOR = "preprocessor_config.json"


def _stored(model: str) -> int | None:
    path = found(model, "config.json")
    return decoders.stored(path.parent) if path else None


def _json(model: str, name: str) -> dict[str, Any] | None:
    path = found(model, name)
    if path is None:
        return None
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: no JSON object ({error}).") from None


def _cached(model: str, name: str) -> Path | None:
    if Path(model).is_absolute() or model.count("/") != 1:
        return None
    path = try_to_load_from_cache(model, name)
    return Path(path) if isinstance(path, str) else None
