"""The vision encoder: loaded without what learns nothing here, and read as patch tokens on their grid whatever its family.

Legend: N views of all panoramas together, S view side, P patches a view, G patches a side, D vision width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from panollava.encoders import ENCODERS, Encoder


def drop_unused(vision: nn.Module) -> None:
    """Take away the parameters that no forward pass reads: they would get no gradient, but weight decay and a place in every checkpoint."""
    for name in family(vision).unused:
        owner, _, leaf = name.rpartition(".")
        setattr(vision.get_submodule(owner), leaf, None)


def family(vision: Any) -> Encoder:
    return ENCODERS[vision.config.model_type]


def patch_tokens(vision: Any, images: Tensor) -> Tensor:
    """Normalised images [N, 3, S, S] -> patch features on their grid [N, G, G, D]: the last hidden state behind the encoder's own last norm."""
    config, kind = vision.config, family(vision)
    side = images.shape[-1] // config.patch_size
    hidden = vision(**_inputs(kind, config, images)).last_hidden_state
    leading = int(kind.class_token) + getattr(config, "num_register_tokens", 0)
    tokens: Tensor = hidden[:, leading:]  # [N, P, D]
    if tokens.shape[1] != side * side:
        raise ValueError(f"The vision encoder gives {tokens.shape[1]} patch tokens a view of {side} x {side} patches.")
    if kind.last_norm:
        tokens = vision.get_submodule(kind.last_norm)(tokens)
    return tokens.reshape(len(images), side, side, -1)


def _inputs(kind: Encoder, config: Any, images: Tensor) -> dict[str, Any]:
    if kind.patchified:
        return _patchified(images, config.patch_size)
    if kind.interpolates or images.shape[-1] == config.image_size:
        return {"pixel_values": images}
    return {"pixel_values": images, "interpolate_pos_encoding": True}  # of another size than the encoder was trained on


def _patchified(images: Tensor, patch: int) -> dict[str, Tensor]:
    """[N, 3, S, S] -> flat patches [N, P, patch*patch*3], row by row and colour last, with the mask and the shape that go with them."""
    side = images.shape[-1] // patch
    whole = images[..., : side * patch, : side * patch]
    cut = whole.reshape(*images.shape[:2], side, patch, side, patch)  # [N, 3, G, patch, G, patch]
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    mask = torch.ones(patches.shape[:2], dtype=torch.long, device=images.device)
    shapes = torch.full((len(images), 2), side, device=images.device)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shapes}
