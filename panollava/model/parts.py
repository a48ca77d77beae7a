"""Load the pretrained parts by hub id or local directory, and put a model together from a config.

Everything that learns is kept in fp32; mixed precision is the trainer's business.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.constants import HF_HUB_OFFLINE
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from panollava import architecture as architectures
from panollava import causes, layouts, resamplers
from panollava.architecture import describe
from panollava.causes import Cause
from panollava.config import RunConfig
from panollava.encoders import ENCODERS
from panollava.errors import BadInput, HubAway, MissingFile
from panollava.model.language import plain_generation
from panollava.model.lora import add_adapters
from panollava.model.panollava import PanoLlava
from panollava.model.text import image_token
from panollava.model.vision import drop_unused
from panollava.rundir import Architecture

log = logging.getLogger("panollava")
set_verbosity_error()  # type: ignore[no-untyped-call]  # tensors that a model lacks are refused below, and those that it has besides are of its other tower
disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar of 50 ms per loaded model says nothing and fills the logs


@dataclass(frozen=True)
class Built:
    """A model with what is needed to feed it."""

    model: PanoLlava
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    layout: layouts.Layout
    image_tokens: int


def build(config: RunConfig, *, language: bool = True, adapters: bool = False) -> Built:
    """The model a config describes, its new parts initialised from `config.seed`. Raises BadInput for models that cannot be had or used.

    `adapters`: with those the config asks for, as stage finetune has it.
    """
    vision_config = _load(AutoConfig, "vision_model", config.vision_model, dtype=None).to_dict()
    text_config = _load(AutoConfig, "language_model", config.language_model, dtype=None).to_dict()
    processor = _load(AutoImageProcessor, "vision_model", config.vision_model, dtype=None)
    tokenizer = _load(AutoTokenizer, "language_model", config.language_model, dtype=None)
    architecture = describe(config, vision_config, processor.to_dict(), text_config)
    sizes = architectures.sizes(architecture)
    resamplers.check(config, sizes)
    vision = _load_vision(config.vision_model, vision_config["model_type"])
    speaker = _load_language(config.language_model) if language else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        resampler = resamplers.make(config, sizes)
        projection = nn.Linear(resampler.width, architecture.language_width)
        if speaker is not None and adapters and config.lora_r:
            add_adapters(speaker, config)
    model = PanoLlava(
        vision, resampler, projection, speaker,
        image_token=image_token(tokenizer), mean=tuple(processor.image_mean), std=tuple(processor.image_std),
    )  # fmt: skip
    tokens = resamplers.image_tokens(config, sizes)
    log.info("%d views of a panorama become %d image tokens (%s)", config.views, tokens, config.resampler)
    return Built(model, tokenizer, architecture, layouts.layout(config), tokens)


def _load_vision(name: str, model_type: str) -> nn.Module:
    """The vision tower alone, out of a full checkpoint or one of its own."""
    encoder = ENCODERS[model_type]
    vision: nn.Module = _load_model(getattr(transformers, encoder.loader), "vision_model", name, **encoder.options)
    drop_unused(vision)
    return vision


def _load_language(name: str) -> nn.Module:
    language: nn.Module = _load_model(AutoModelForCausalLM, "language_model", name)
    plain_generation(language)
    return language


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
        raise _refusal(field, name, error) from error


def _refusal(field: str, name: str, error: Exception) -> BadInput:
    said = str(error).splitlines()[0]
    if architectures.is_directory(name) and not Path(name).exists():
        return MissingFile(f"{field}: {name}: there is no such directory.")
    if causes.of(error) is Cause.hub_away:
        why, more = (" (HF_HUB_OFFLINE is set)", ", or clear HF_HUB_OFFLINE") if HF_HUB_OFFLINE else ("", "")
        do = f"Fetch it with `hf download {name}` where there is a network, or give a local directory{more}."
        return HubAway(f"{field}: {name!r} is not on this machine, and the hub does not answer{why}. {do}\n{said}")
    where = "in that directory" if Path(name).is_dir() else "on the hub, in its cache, or as a local directory"
    why = f"no usable model {name!r} {where}: {said}"
    return BadInput(f"{field}: {why}", [(field, why)])
