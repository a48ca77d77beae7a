"""Tiny random models of the families that a run may be made of, written as `save_pretrained` writes the real ones."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIDE = {"image_size": 32, "patch_size": 8}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "siglip": ("SiglipModel", "SiglipImageProcessorPil", {}),
    "siglip_vision_model": ("SiglipVisionModel", "SiglipImageProcessorPil", {"intermediate_size": 64}),
    "siglip2": ("Siglip2Model", "Siglip2ImageProcessorPil", {}),
    "clip": ("CLIPModel", "CLIPImageProcessorPil", {}),
    "clip_vision_model": ("CLIPVisionModel", "CLIPImageProcessorPil", {"intermediate_size": 64}),
    "dinov2": ("Dinov2Model", "BitImageProcessorPil", {"mlp_ratio": 2, "image_size": 48}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "BitImageProcessorPil", {"mlp_ratio": 2, "num_register_tokens": 3}),
    "vit": ("ViTModel", "ViTImageProcessorPil", {"intermediate_size": 64}),
}
"""By model_type: the class that is saved, the image processor beside it, and what its config has besides SMALL and SIDE."""
DUAL = {"siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model", "clip": "clip_vision_model"}


def write_encoder(directory: Path, model_type: str) -> Path:
    """A vision encoder, alone or with its text tower, and its image processor."""
    name, processor, more = ENCODERS[model_type]
    torch.manual_seed(1)
    model = getattr(transformers, name)(_encoder_config(model_type, more))
    model.save_pretrained(directory)
    getattr(transformers, processor)(**_processing(model_type)).save_pretrained(directory)
    return directory


def _encoder_config(model_type: str, more: dict[str, Any]) -> Any:
    if model_type not in DUAL:
        return transformers.CONFIG_MAPPING[model_type](**(SMALL | SIDE | more))
    tower = SMALL | SIDE | {"intermediate_size": 64} | ({"num_patches": 16} if model_type == "siglip2" else {})
    text = SMALL | {"intermediate_size": 64, "vocab_size": 50, "projection_size": 32}
    return transformers.CONFIG_MAPPING[model_type](vision_config=tower, text_config=text, projection_dim=32)


def _processing(model_type: str) -> dict[str, Any]:
    if model_type == "siglip2":
        return {"patch_size": 8, "max_num_patches": 16}
    if model_type.startswith(("clip", "dinov2")):
        return {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "do_resize": True}
    return {"size": {"height": 32, "width": 32}}


def config_json(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "config.json").read_text()))
