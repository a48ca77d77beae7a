"""The vision encoders by family: which class loads one, how many of its tokens are no patches, what its config leaves out, its parameters.

Torch-free. A family is known by the `model_type` in its `config.json`, or of the `vision_config` in it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 16, "num_channels": 3}
"""transformers' defaults, which published configs leave out."""


@dataclass(frozen=True)
class Encoder:
    """One family. `loader` is the class of transformers that holds the vision tower alone and reads full checkpoints too."""

    loader: str
    defaults: Config
    parameters: Callable[[Config], int]
    options: Config = field(default_factory=dict)
    """For the loader: what learns nothing here, such as a pooling head, is left out."""
    class_token: bool = False
    """Whether a token that is no patch comes first. Never to be told from an odd count: 27 x 27 patches are 729."""
    last_norm: str = ""
    """The encoder's last norm, where its own forward pass leaves the patches without it."""
    unused: tuple[str, ...] = ()
    """Parameters that no forward pass reads; they are dropped."""
    patchified: bool = False
    """Whether it is given flat patches with their mask and shape instead of images."""
    interpolates: bool = False
    """Whether it fits its positions to the size of the image without being asked to."""


def _layer(c: Config, *, biases: bool = True) -> int:
    """Two norms, attention, and a feed-forward of two linear maps."""
    h, inner = c["hidden_size"], c.get("intermediate_size") or c["hidden_size"] * c["mlp_ratio"]
    return int(4 * h + 4 * h * h + (4 * h if biases else h) + 2 * h * inner + inner + h)


def _patches(c: Config) -> int:
    return int(c["num_channels"] * c["patch_size"] ** 2 * c["hidden_size"])


def _grid(c: Config) -> int:
    return int((c["image_size"] // c["patch_size"]) ** 2)


def _siglip(c: Config) -> int:
    h, positions = c["hidden_size"], c.get("num_patches") or _grid(c)
    return int(_patches(c) + h + positions * h + c["num_hidden_layers"] * _layer(c) + 2 * h)


def _clip(c: Config) -> int:
    h = c["hidden_size"]
    return int(_patches(c) + h + (_grid(c) + 1) * h + c["num_hidden_layers"] * _layer(c) + 4 * h)


def _vit(c: Config) -> int:
    h = c["hidden_size"]
    return int(_patches(c) + 2 * h + (_grid(c) + 1) * h + c["num_hidden_layers"] * _layer(c, biases=c["qkv_bias"]) + 2 * h)


def _dinov2(c: Config) -> int:
    h, layers = c["hidden_size"], c["num_hidden_layers"]
    scales = 2 * h
    if c["use_swiglu_ffn"]:
        inner = (int(h * c["mlp_ratio"] * 2 / 3) + 7) // 8 * 8
        swap = (h + 1) * 2 * inner + (inner + 1) * h - (2 * h * h * c["mlp_ratio"] + h * c["mlp_ratio"] + h)
    else:
        swap = 0
    return int(_vit(c) + c.get("num_register_tokens", 0) * h + layers * (scales + swap))


def _dinov3(c: Config) -> int:
    """Turned positions have no parameters; each of the linear maps may lack its bias."""
    h, inner, bias = c["hidden_size"], c["intermediate_size"], c["mlp_bias"]
    attention = 4 * h * h + h * sum(c[f"{name}_bias"] for name in ("query", "key", "value", "proj"))
    ups = 2 if c["use_gated_mlp"] else 1
    layer = 4 * h + attention + (ups + 1) * h * inner + (ups * inner + h if bias else 0) + 2 * h
    return int(_patches(c) + h + (1 + c["num_register_tokens"]) * h + c["num_hidden_layers"] * layer + 2 * h)


SIGLIP = {"model_type": "siglip_vision_model", "intermediate_size": 3072} | BASE
CLIP = {"model_type": "clip_vision_model", "intermediate_size": 3072} | BASE | {"patch_size": 32}
DINO3 = {
    "model_type": "dinov3_vit", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536,
    "image_size": 224, "patch_size": 16, "num_channels": 3, "num_register_tokens": 0, "use_gated_mlp": False,
    "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True,
}  # fmt: skip
DINO = {"mlp_ratio": 4, "qkv_bias": True, "use_swiglu_ffn": False} | BASE
_SIGLIP = Encoder("SiglipVisionModel", SIGLIP, _siglip, options={"vision_use_head": False})
_SIGLIP2 = Encoder(
    "Siglip2VisionModel", SIGLIP | {"model_type": "siglip2_vision_model", "num_patches": 256}, _siglip,
    options={"vision_use_head": False}, patchified=True, interpolates=True,
)  # fmt: skip
_CLIP = Encoder("CLIPVisionModel", CLIP, _clip, class_token=True, last_norm="post_layernorm")
ENCODERS = {
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "dinov2": Encoder(
        "Dinov2Model", DINO | {"model_type": "dinov2", "patch_size": 14}, _dinov2,
        class_token=True, unused=("embeddings.mask_token",), interpolates=True,
    ),
    "dinov2_with_registers": Encoder(
        "Dinov2WithRegistersModel", DINO | {"model_type": "dinov2_with_registers", "num_register_tokens": 4}, _dinov2,
        class_token=True, unused=("embeddings.mask_token",), interpolates=True,
    ),
    "dinov3_vit": Encoder("DINOv3ViTModel", DINO3, _dinov3, class_token=True, unused=("embeddings.mask_token",), interpolates=True),
    "vit": Encoder(
        "ViTModel", {"model_type": "vit", "intermediate_size": 3072, "qkv_bias": True} | BASE, _vit,
        options={"add_pooling_layer": False}, class_token=True,
    ),
}  # fmt: skip


def vision_config(config: Config) -> dict[str, Any]:
    """What a `config.json` says of its vision tower, with the family's defaults where it says nothing. Raises KeyError for another family."""
    tower = config.get("vision_config") or config
    family = ENCODERS[config["model_type"]]
    told = {**family.defaults, **{name: value for name, value in tower.items() if value is not None}}
    if family.patchified:  # such a config counts patches and names no side
        told["image_size"] = math.isqrt(told["num_patches"]) * told["patch_size"]
    return told


def view_size(processor: Config) -> int | None:
    """Side of the square image that an image processor's config gives the encoder; None if it gives none."""
    size = (processor.get("do_center_crop") and processor.get("crop_size")) or processor.get("size") or {}
    sides = {size} if isinstance(size, int) else {size.get("height"), size.get("width")} - {None} or {size.get("shortest_edge")}
    side = sides.pop()
    return int(side) if side and not sides else None
