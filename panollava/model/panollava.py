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

from panollava.model.text import IGNORE


@dataclass(frozen=True)
class Batch:
    """B questions on U panoramas. `image_index[b]` says which panorama sample b asks about."""

    pixels: Tensor  # uint8 [U, V, S, S, 3]; [0] where features are given
    image_index: Tensor  # int64 [B]
    input_ids: Tensor  # int64 [B, T], left-padded
    attention_mask: Tensor  # int64 [B, T]
    labels: Tensor  # int64 [B, T], IGNORE except on the answer
    features: Tensor | None = None  # [U, V, G, G, D], what a frozen encoder gives for these panoramas

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: each.to(device, non_blocking=non_blocking) for name, each in tensors.items() if each is not None})


@dataclass(frozen=True)
class Loss:
    """A sum and its count, so that means over batches, epochs and devices can be weighted by tokens."""

    total: Tensor  # fp32 scalar, summed cross-entropy in nats
    tokens: int

    @property
    def mean(self) -> Tensor:
        return self.total / self.tokens


class PanoLlava(nn.Module):
    """Vision encoder -> pool -> resampler -> projection -> language model. The language model may be left out (stage vision)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, vision: nn.Module, resampler: nn.Module, projection: nn.Module, language: nn.Module | None,
        *, pool: int, image_token: int, mean: tuple[float, ...], std: tuple[float, ...],
    ) -> None:  # fmt: skip
        super().__init__()
        self.vision, self.resampler, self.projection, self.language = vision, resampler, projection, language
        self.pool, self.image_token = pool, image_token
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def patches(self, pixels: Tensor) -> Tensor:
        """uint8 views [U, V, S, S, 3] -> patch features on their grid [U, V, G, G, D]."""
        images = pixels.flatten(0, 1).permute(0, 3, 1, 2).to(self.mean.dtype) / 255  # [U*V, 3, S, S]
        tokens = self.vision(pixel_values=(images - self.mean) / self.std).last_hidden_state  # [U*V, P, D]
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise ValueError(f"The vision encoder gives {tokens.shape[1]} tokens a view, which is no square grid.")
        grid: Tensor = tokens.reshape(*pixels.shape[:2], side, side, -1)
        return grid

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """uint8 views [U, V, S, S, 3] -> image tokens [U, N, L]."""
        return self.bridge(self.patches(pixels))

    def see(self, batch: Batch) -> Tensor:
        """Patch features [U, V, G, G, D] of a batch's panoramas: those it brings along, else the encoder's."""
        return self.patches(batch.pixels) if batch.features is None else batch.features.to(self.mean.dtype)

    def bridge(self, grid: Tensor) -> Tensor:
        """Patch features [U, V, G, G, D] -> image tokens [U, N, L], view-major: the ring once around, starting at the front."""
        panoramas, views = grid.shape[:2]
        maps = grid.flatten(0, 1).permute(0, 3, 1, 2)  # [U*V, D, G, G]
        pooled = F.avg_pool2d(maps, self.pool).flatten(2).transpose(1, 2)  # [U*V, P / pool^2, D]
        tokens = pooled.reshape(panoramas, views * pooled.shape[1], -1)  # [U, N, D]
        bridged: Tensor = self.projection(self.resampler(tokens))
        return bridged

    def embed(self, input_ids: Tensor, image_tokens: Tensor) -> Tensor:
        """Token ids [B, T] with N placeholders each, image tokens [B, N, L] -> embeddings [B, T, L]. Raises if the counts differ."""
        embeddings = self._language.get_input_embeddings()(input_ids)
        slots = input_ids == self.image_token
        expected = image_tokens.shape[1]
        if not bool((slots.sum(1) == expected).all()):
            raise ValueError(f"Every sample needs {expected} image placeholders; found {slots.sum(1).tolist()}.")
        filled: Tensor = embeddings.masked_scatter(slots.unsqueeze(-1), image_tokens.to(embeddings.dtype))
        return filled

    def forward(self, batch: Batch) -> Loss:
        """Summed next-token cross-entropy over the answers. Raises ValueError for a batch with nothing to learn from."""
        images = self.bridge(self.see(batch))[batch.image_index]  # [B, N, L]
        hidden = self._language.model(inputs_embeds=self.embed(batch.input_ids, images), attention_mask=batch.attention_mask).last_hidden_state
        targets = batch.labels[:, 1:]  # position t predicts token t + 1
        kept = targets != IGNORE
        tokens = int(kept.sum())
        if tokens == 0:
            raise ValueError("No token of this batch is supervised: the answers are empty or were cut away by max_text_length.")
        # Only the supervised positions reach the head: full logits of a real vocabulary cost more than the rest of the step.
        logits = self._language.lm_head(hidden[:, :-1][kept]).float()
        return Loss(F.cross_entropy(logits, targets[kept], reduction="sum"), tokens)

    @torch.no_grad()
    def generate(self, image_tokens: Tensor, input_ids: Tensor, attention_mask: Tensor, *, max_new_tokens: int, stop: list[int], pad: int) -> Tensor:
        """Greedy answers: image tokens [B, N, L] and left-padded prompts [B, T] -> new token ids only [B, <= max_new_tokens]."""
        answers: Tensor = self._language.generate(
            inputs_embeds=self.embed(input_ids, image_tokens), attention_mask=attention_mask, max_new_tokens=max_new_tokens,
            do_sample=False, num_beams=1, eos_token_id=stop, pad_token_id=pad,
        )  # fmt: skip
        return answers

    @property
    def _language(self) -> Any:
        if self.language is None:
            raise ValueError("This model was built without its language model.")
        return self.language


def freeze(model: nn.Module, trains: frozenset[str]) -> None:
    """Let exactly these parts learn; a part is any dotted piece of a parameter's name. Raises ValueError for a part that is not there."""
    unused = set(trains)
    for name, parameter in model.named_parameters():
        hits = trains & set(name.split("."))
        parameter.requires_grad_(bool(hits))
        unused -= hits
    if unused:
        raise ValueError(f"Nothing in the model is called {sorted(unused)}.")


def set_modes(module: nn.Module, inherited: bool = True) -> None:
    """Training mode for modules in which something learns, evaluation mode for frozen ones; a module without parameters follows its parent."""
    learns = [parameter.requires_grad for parameter in module.parameters()]
    module.training = any(learns) if learns else inherited
    for child in module.children():
        set_modes(child, module.training)
