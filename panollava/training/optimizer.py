"""The optimizer of a stage: how fast each part learns, what decays, and how the learning rates run."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from panollava.config import StageConfig
from panollava.training.weights import part_of

RATES = {"vision": "vision_lr", "resampler": "projector_lr", "projection": "projector_lr"}
"""Parts that may have a learning rate of their own, and the setting that gives it."""


def adamw(module: nn.Module, settings: StageConfig, *, fused: bool) -> torch.optim.AdamW:
    """AdamW over what learns."""
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    decaying = set(_decaying(module))
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if name in decaying else 0.0
            groups.setdefault((_rate(name, settings), decay), []).append(parameter)
    described = [
        {"params": members, "lr": getattr(settings, rate), "peak": getattr(settings, rate), "weight_decay": decay, "rate": rate}
        for (rate, decay), members in groups.items()
    ]
    return torch.optim.AdamW(described, betas=(0.9, 0.95), fused=fused or None)


def _rate(name: str, settings: StageConfig) -> str:
    rate = RATES.get(part_of(name), "lr")
    return rate if getattr(settings, rate) is not None else "lr"


def _decaying(module: nn.Module) -> Iterator[str]:
    """Names of the matrices and kernels: no norms, no biases, no embeddings, no learned tokens and positions."""
    for path, owner in module.named_modules():
        for name, parameter in owner.named_parameters(path, recurse=False):
            if parameter.ndim > 1 and name.endswith("weight") and not isinstance(owner, nn.Embedding):
                yield name


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> dict[str, float]:
    """Let each group learn at this share of its peak; the learning rates by the settings that give them."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return {group["rate"]: group["lr"] for group in optimizer.param_groups}


def share_of_peak(step: int, steps: int, settings: StageConfig) -> float:
    """Share of the peak learning rate at a step: a straight rise, then a cosine down to min_lr_ratio."""
    warm, floor = math.ceil(settings.warmup_ratio * steps), settings.min_lr_ratio
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - warm)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
