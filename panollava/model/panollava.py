"""A panorama becomes views, views become image tokens, and a language model answers from them.

The whole forward path, top to bottom. Where the parts come from: `parts.py`. Prompts and labels: `text.py`.
Legend: U unique panoramas, V views, S view side in pixels, P patches a view, D vision width, N image tokens a panorama,
L language width, B samples, T tokens of the longest sample.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panollava.model.language import answer_logits, ends
from panollava.model.text import IGNORE
from panollava.model.vision import patch_tokens
from panollava.stages import parts


@dataclass(frozen=True)
class Batch:
    """B questions on U panoramas. `image_index[b]` says which panorama sample b asks about."""

    pixels: Tensor  # uint8 [U, V, S, S, 3]; [0] where features are given
    image_index: Tensor  # int64 [B]
    input_ids: Tensor  # int64 [B, T], left-padded
    attention_mask: Tensor  # int64 [B, T]
    labels: Tensor  # int64 [B, T], IGNORE except on the answer
    features: Tensor | None = None  # [U, V, G, G, D], what a frozen encoder gives for these panoramas
    tokens: int = 0  # without padding, counted where the batch is made: on a GPU it would make the step wait
    supervised: int = 0

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: each.to(device, non_blocking=non_blocking) for name, each in values.items() if isinstance(each, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Loss:
    """A sum and its count, so that means over batches, epochs and devices can be weighted by tokens."""

    total: Tensor  # fp32 scalar, summed cross-entropy in nats
    tokens: int

    @property
    def mean(self) -> Tensor:
        return self.total / self.tokens


class PanoLlava(nn.Module):
    """Vision encoder -> resampler -> projection -> language model. The language model may be left out (stage vision)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, vision: nn.Module, resampler: nn.Module, projection: nn.Module, language: nn.Module | None,
        *, image_token: int, mean: tuple[float, ...], std: tuple[float, ...],
    ) -> None:  # fmt: skip
        super().__init__()
        self.vision, self.resampler, self.projection, self.language = vision, resampler, projection, language
        self.image_token = image_token
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def patches(self, pixels: Tensor) -> Tensor:
        """uint8 views [U, V, S, S, 3] -> patch features on their grid [U, V, G, G, D]."""
        images = pixels.flatten(0, 1).permute(0, 3, 1, 2).to(self.mean.dtype) / 255  # [U*V, 3, S, S]
        grids = patch_tokens(self.vision, (images - self.mean) / self.std)  # [U*V, G, G, D]
        return grids.reshape(*pixels.shape[:2], *grids.shape[1:])

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """uint8 views [U, V, S, S, 3] -> image tokens [U, N, L]."""
        return self.bridge(self.patches(pixels))

    def see(self, batch: Batch) -> Tensor:
        """Patch features [U, V, G, G, D] of a batch's panoramas: those it brings along, else the encoder's."""
        return self.patches(batch.pixels) if batch.features is None else batch.features.to(self.mean.dtype)

    def bridge(self, grid: Tensor) -> Tensor:
        """Patch features [U, V, G, G, D] -> image tokens [U, N, L]."""
        bridged: Tensor = self.projection(self.resampler(grid))
        return bridged

    def embed(self, input_ids: Tensor, image_tokens: Tensor) -> Tensor:
        """Token ids [B, T] with N placeholders each, image tokens [B, N, L] -> embeddings [B, T, L]. Raises if the counts differ."""
        slots = input_ids == self.image_token
        embeddings = self._language.get_input_embeddings()(input_ids.masked_fill(slots, 0))
        expected = image_tokens.shape[1]
        if not bool((slots.sum(1) == expected).all()):
            raise ValueError(f"Every sample needs {expected} image placeholders; found {slots.sum(1).tolist()}.")
        filled: Tensor = embeddings.masked_scatter(slots.unsqueeze(-1), image_tokens.to(embeddings.dtype))
        return filled

    def forward(self, batch: Batch, grid: Tensor | None = None) -> Loss:
        """Summed next-token cross-entropy over the answers. Raises ValueError for a batch with nothing to learn from.

        `grid` are the batch's patch features [U, V, G, G, D] where they are at hand.
        """
        images = self.bridge(self.see(batch) if grid is None else grid)[batch.image_index]  # [B, N, L]
        targets = batch.labels[:, 1:]  # position t predicts token t + 1
        kept = targets != IGNORE
        tokens = int(kept.sum())
        if tokens == 0:
            raise ValueError("No token of this batch is supervised: the answers are empty or were cut away by max_text_length.")
        kept_at = F.pad(kept, (0, 1))  # [B, T]: nothing follows the last token
        logits = answer_logits(self._language, self.embed(batch.input_ids, images), batch.attention_mask, kept_at)
        return Loss(F.cross_entropy(logits, targets[kept], reduction="sum"), tokens)

    @torch.no_grad()
    def generate(self, image_tokens: Tensor, input_ids: Tensor, attention_mask: Tensor, *, max_new_tokens: int, stop: list[int], pad: int) -> Tensor:
        """Greedy answers: image tokens [B, N, L] and left-padded prompts [B, T] -> new token ids only [B, <= max_new_tokens]."""
        answers: Tensor = self._language.generate(
            inputs_embeds=self.embed(input_ids, image_tokens), attention_mask=attention_mask, max_new_tokens=max_new_tokens,
            do_sample=False, num_beams=1, eos_token_id=sorted({*stop, *ends(self._language)}), pad_token_id=pad,
        )  # fmt: skip
        return answers

    @property
    def _language(self) -> Any:
        if self.language is None:
            raise ValueError("This model was built without its language model.")
        return self.language


def freeze(model: nn.Module, trains: frozenset[str], optional: frozenset[str] = frozenset()) -> None:
    """Let exactly these parts learn; a part is any dotted piece of a parameter's name. Raises ValueError for a part that is not there.

    A part without parameters, such as a resampler that only averages, is there and learns nothing. `optional` parts need not be there.
    """
    unused = set(trains).difference(*(parts(name) for name, _ in model.named_modules()))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool((trains | optional) & parts(name)))
        unused -= parts(name)
    if unused:
        raise ValueError(f"Nothing in the model is called {sorted(unused)}.")


def set_modes(module: nn.Module, inherited: bool = True) -> None:
    """Training mode for modules in which something learns, evaluation mode for frozen ones; a module without parameters follows its parent."""
    learns = [parameter.requires_grad for parameter in module.parameters()]
    module.training = any(learns) if learns else inherited
    for child in module.children():
        set_modes(child, module.training)
