"""Ways to need less memory or time that leave the numbers as they are: recomputed activations, compiled encoders, fixed algorithms."""

import os
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

CACHES = ("past_key_values", "layer_past")


def recompute_activations(part: nn.Module) -> int:
    """Let each layer of a part keep its input alone until the backward pass; the number of such layers.

    transformers' own switch works only in training mode, and a frozen language model, through which the gradient flows, is in evaluation mode.
    """
    layers = [layer for layer in part.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)
    return len(layers)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    without_cache = kwargs | {name: None for name in CACHES if name in kwargs}  # a second pass would write into it twice
    return checkpoint(partial(forward, **without_cache), *args, use_reentrant=False)


def fix_algorithms() -> None:
    """The same bits in every run, where there are algorithms that give them; a warning names those that have none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
