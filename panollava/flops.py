"""Floating-point operations that a sample costs, from the models' config files, and what devices can do at most. Torch-free.

A multiplication and the addition that follows it count as two. Counted are the matrix products of both transformers, attention included,
and those of the language model's head where something is supervised. Norms, activations and the bridge between the models are left out: the
default bridge is below 1 % of a sample, stage vision's expander about 2 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panollava.stages import RECIPES, Stage

Config = Mapping[str, Any]
FORWARD, INPUTS, WEIGHTS = 1, 1, 1
"""Shares of a step in forward passes: the gradient by the inputs costs what the forward pass costs, and the one by the weights costs it again."""


@dataclass(frozen=True)
class Vision:
    """The vision encoder, on `views` views of `patches` patches each."""

    width: int
    layers: int
    inner: int
    patch_size: int
    patches: int
    views: int

    @classmethod
    def of(cls, config: Config, image_size: int, views: int) -> "Vision":
        """From a vision tower's config with nothing left out."""
        width, patch = config["hidden_size"], config["patch_size"]
        inner = config.get("intermediate_size") or int(width * config["mlp_ratio"])
        return cls(width, config["num_hidden_layers"], inner, patch, (image_size // patch) ** 2, views)

    @property
    def forward(self) -> float:
        """Of one panorama. Every patch looks at every patch of its view."""
        embedding = 3 * self.patch_size**2 * self.width
        weights = embedding + self.layers * (4 * self.width**2 + 2 * self.width * self.inner)
        attention = self.layers * 2 * self.width * self.patches
        return 2.0 * self.views * self.patches * (weights + attention)


@dataclass(frozen=True)
class Language:
    """The language model. `queries` and `keys` are the widths of all query and all key heads."""

    width: int
    layers: int
    inner: int
    queries: int
    keys: int
    vocabulary: int

    @classmethod
    def of(cls, config: Config) -> "Language":
        width, heads = config["hidden_size"], config["num_attention_heads"]
        head = config.get("head_dim") or width // heads
        keys = (config.get("num_key_value_heads") or heads) * head
        return cls(width, config["num_hidden_layers"], config["intermediate_size"], heads * head, keys, config["vocab_size"])

    def forward(self, tokens: float, supervised: float) -> float:
        """Of one sequence. A token looks at those before it, half of all on average."""
        weights = self.layers * (2 * self.width * self.queries + 2 * self.width * self.keys + 3 * self.width * self.inner)
        attention = self.layers * self.queries * tokens
        return 2.0 * (tokens * (weights + attention) + supervised * self.width * self.vocabulary)


def per_panorama(stage: Stage, vision: Vision) -> float:
    """What a step costs for each panorama that its encoder sees."""
    learns = "vision" in RECIPES[stage].trains
    return vision.forward * (FORWARD + INPUTS + WEIGHTS if learns else FORWARD)


def per_sequence(language: Language, tokens: float, supervised: float) -> float:
    """What a step costs for each question with its answer. The language model is frozen and the gradient goes through it."""
    return language.forward(tokens, supervised) * (FORWARD + INPUTS)


def per_sample(stage: Stage, vision: Vision, language: Language, tokens: float, supervised: float) -> float:
    """What a step costs for a sample with a panorama of its own. `tokens` are all of its tokens, image tokens included."""
    seen = per_panorama(stage, vision)
    return seen + per_sequence(language, tokens, supervised) if RECIPES[stage].needs_text else seen


PEAKS = {
    "A10": 125e12, "A10G": 70e12, "A30": 165e12, "A40": 150e12, "A100": 312e12, "A6000": 155e12,
    "H100": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H200": 989e12, "B200": 2250e12,
    "L4": 121e12, "L40": 181e12, "L40S": 362e12, "RTX 3090": 71e12, "RTX 4090": 165e12,
}  # fmt: skip
"""Dense bf16 products with fp32 sums, FLOP a second, as the makers' data sheets have them, by a part of the device's name."""


def peak(device: str) -> float | None:
    """FLOP a second that a device can do at most in bf16; None for one that is not in the table."""
    known = [name for name in PEAKS if f" {name} " in f" {device.replace('-', ' ')} "]
    return PEAKS[max(known, key=len)] if known else None
