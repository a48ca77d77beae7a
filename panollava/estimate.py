"""How much memory a step needs on each device, from the models' config files alone. Torch-free. An estimate: docs/log.md says how well it holds.

What a layer keeps until the backward pass is counted as in Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
Models" (MLSys 2023, section 4.1), without dropout and without the attention matrix, which fused attention does not keep; a layer whose
weights are frozen does not keep the inputs of its matrix products. Not counted: what a process takes before it has a model (on a GPU the
driver's context, about half a gigabyte), the panoramas that are held in the machine's own memory, and gaps between allocations.
Legend: h width, f width of the feed-forward, q width of all query heads, B samples and U panoramas of a micro-batch, W expander width.
"""

from dataclasses import dataclass

from pydantic import BaseModel, computed_field

from panollava.architecture import Outline
from panollava.config import RunConfig
from panollava.encoders import ENCODERS
from panollava.flops import Language, Vision
from panollava.resamplers import POOL, QUERIES, RESAMPLERS
from panollava.stages import RECIPES, Stage

WIDE = 4
"""Bytes of a weight, a gradient, one of AdamW's two moments, and of what a norm reads: fp32 in every precision."""


class Memory(BaseModel):
    """Bytes on one device at the peak of a step, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


@dataclass(frozen=True)
class Micro:
    """One micro-batch of one device. `supervised` tokens of its samples' `text` are answers; `pairs` are an overlap loss's, of one panorama."""

    samples: int
    text: int
    supervised: int
    pairs: int


def memory(config: RunConfig, stage: Stage, outline: Outline, micro: Micro, parts: dict[str, int], learns: set[str], narrow: int) -> Memory:
    """Of a stage whose model has these parts. `narrow`: bytes of a number in its matrix products, 4 in fp32 and 2 in mixed precision."""
    learning = sum(parts[part] for part in learns)
    shared = 2 if config.devices * config.num_nodes > 1 else 1  # ddp holds the gradients once more, in the buckets that it exchanges
    copies = sum(parts[part] for part in parts if part in learns or part == "language") * narrow if narrow < WIDE else 0
    kept = _Kept(config, stage, outline, micro, narrow)
    return Memory(
        weights=WIDE * sum(parts.values()) + (0 if config.gradient_checkpointing else copies),
        gradients=shared * WIDE * learning,
        optimizer=2 * WIDE * learning,
        activations=kept.encoder() + kept.bridge() + kept.overlap() + kept.language(),
        logits=kept.logits(),
    )


@dataclass(frozen=True)
class _Kept:
    """Bytes that the forward pass leaves for the backward pass, and what one layer needs while it is at work."""

    config: RunConfig
    stage: Stage
    outline: Outline
    micro: Micro
    narrow: int

    def encoder(self) -> int:
        """Its layers keep two norms' inputs and outputs, queries, keys, values, what attention gives, and the feed-forward before and behind its
        activation. Frozen, it needs one layer's worth at a time.
        """
        at, tower = self.outline.architecture, self.outline.tower
        vision = Vision.of(tower, at.image_size, at.views)
        tokens = self.micro.samples * at.views * (vision.patches + ENCODERS[tower["model_type"]].class_token)
        layer = tokens * (WIDE * 2 * vision.width + self.narrow * (6 * vision.width + 2 * vision.inner))
        pixels = self.micro.samples * at.views * 3 * at.image_size**2 * (1 + 2 * WIDE)
        return pixels + self._layers(layer, vision.layers, WIDE * tokens * vision.width, "vision" in RECIPES[self.stage].trains)

    def bridge(self) -> int:
        if not RECIPES[self.stage].needs_text:
            return 0
        at, options = self.outline.architecture, RESAMPLERS[self.config.resampler].options
        patches, width, tokens = at.views * (at.image_size // at.patch_size) ** 2, at.resampler_width, self.outline.image_tokens
        read = patches * (at.vision_width * WIDE + (width * 2 * self.narrow if QUERIES in options else 0))
        each = tokens * (width * 6 + at.language_width * 2) * self.narrow
        layers = (self.config.resampler_layers * (2 * patches + 20 * tokens) * width * self.narrow) if QUERIES in options else 0
        pooled = tokens * at.vision_width * WIDE if POOL in options else 0
        return self.micro.samples * (read + pooled + each + layers)

    def overlap(self) -> int:
        """Both sides of each pair in fp32: the patch, four tensors of the expander, and three of the loss on it."""
        if self.config.overlap_loss not in self.config.losses(self.stage):
            return 0
        each = self.outline.architecture.vision_width + 7 * self.config.expander_width
        return 2 * WIDE * self.micro.samples * self.micro.pairs * each

    def language(self) -> int:
        """Frozen: its layers keep their norms' inputs, as they are and divided, queries and keys and values and what attention gives, and three of
        the feed-forward. Adapters keep what they read besides.
        """
        if not RECIPES[self.stage].needs_text:
            return 0
        model = Language.of(self.outline.language)
        tokens = self.micro.samples * (self.outline.image_tokens + self.micro.text)
        adapters = 2 * model.width + model.inner if self.config.lora_r and self.stage is Stage.finetune else 0
        layer = tokens * (WIDE * 4 * model.width + self.narrow * (4 * model.queries + 3 * model.inner + adapters))
        return self._layers(layer, model.layers, WIDE * tokens * model.width, True)

    def logits(self) -> int:
        """Of the supervised tokens alone, with their logarithms and their gradient, in fp32."""
        if not RECIPES[self.stage].needs_text:
            return 0
        return 3 * WIDE * self.micro.samples * self.micro.supervised * int(self.outline.language["vocab_size"])

    def _layers(self, layer: int, layers: int, inputs: int, flows: bool) -> int:
        """`flows`: whether a gradient does; then the layer at work needs the gradients of what it kept besides. With gradient checkpointing each
        layer keeps its input, and one is computed again at a time.
        """
        if not flows:
            return layer
        return layers * inputs + 2 * layer if self.config.gradient_checkpointing else (layers + 1) * layer
