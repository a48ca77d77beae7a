"""A checkpoint that answers questions: everything it needs to know is in the checkpoint itself.

Legend: U panoramas, V views, S view side, G patches a side, D vision width, N image tokens, L language width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from panollava import rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.hf.describe import check_complete, rebuild, stands_alone
from panollava.layouts import layout
from panollava.model.language import ends
from panollava.model.panollava import PanoLlava
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.stages import RECIPES, Stage
from panollava.training import beside
from panollava.training.weights import describe, load_weights
from panollava.views import Cutter


@dataclass(frozen=True)
class Answer:
    """What was said, and whether it was cut at the most tokens there may be."""

    text: str
    truncated: bool


@dataclass(frozen=True)
class Answerer:
    """A model with its prompts and its way of cutting panoramas."""

    model: PanoLlava
    prompter: Prompter
    cutter: Cutter
    stage: Stage
    config: RunConfig

    @property
    def device(self) -> torch.device:
        return self.model.mean.device

    @cached_property
    def stop(self) -> list[int]:
        """Tokens that end an answer: those of the template, and those that the language model knows besides."""
        return sorted({*self.prompter.stop, *ends(self.model.language)})

    @torch.inference_mode()
    def encode(self, views: Tensor) -> Tensor:
        """uint8 views [U, V, S, S, 3] -> image tokens [U, N, L]."""
        return self.model.image_tokens(views.to(self.device))

    @torch.inference_mode()
    def bridge(self, features: Tensor) -> Tensor:
        """What the vision encoder has seen, [U, V, G, G, D], -> image tokens [U, N, L]."""
        return self.model.bridge(features.to(self.device))

    def answer(self, image_tokens: Tensor, queries: Sequence[str], max_new_tokens: int) -> list[str]:
        """The texts of `answers`."""
        return [each.text for each in self.answers(image_tokens, queries, max_new_tokens)]

    def answers(self, image_tokens: Tensor, queries: Sequence[str], max_new_tokens: int) -> list[Answer]:
        """Greedy answers to one question per row of image tokens [B, N, L]. The batch changes no answer: prompts are padded on the left."""
        ids, mask, _ = self.prompter.collate([self.prompter.question(query) for query in queries])
        with torch.inference_mode():
            new = self.model.generate(
                image_tokens, ids.to(self.device), mask.to(self.device), max_new_tokens=max_new_tokens, stop=self.stop, pad=self.prompter.pad
            )
        ended = torch.isin(new, torch.tensor(self.stop, device=new.device)).any(dim=1).tolist()  # [B, <= max_new_tokens]
        return [Answer(text, not end) for text, end in zip(self.prompter.decode(new), ended, strict=True)]

    def prompt_length(self, query: str) -> int:
        """Tokens of a question, image tokens included."""
        return len(self.prompter.question(query).ids)


def cutter_of(config: RunConfig, image_size: int) -> Cutter:
    """Cuts panoramas into the views that a run's model has learned from."""
    return Cutter(layout(config), image_size, config.supersample)


def load(checkpoint: Path, *, untrained_seed: int | None = None) -> Answerer:
    """Load a checkpoint of stage resampler or finetune. With `untrained_seed`: the same pretrained models under a bridge that has learned nothing."""
    config, stage, architecture = describe(checkpoint)
    if stage is Stage.vision:
        raise BadInput(
            f"{checkpoint}: a checkpoint of stage vision has no trained path to the language model; evaluate a resampler or finetune checkpoint."
        )
    if untrained_seed is not None:
        config = config.model_copy(update={"seed": untrained_seed})
    alone = untrained_seed is None and stands_alone(checkpoint)
    built = rebuild(checkpoint) if alone else build(config, adapters="lora" in RECIPES[stage].optional)
    rundir.check_same_architecture(checkpoint, stage, architecture, built.architecture)
    beside.check_same(checkpoint, built.model)
    if untrained_seed is None:
        load_weights(built.model, checkpoint, stage)
    if alone:
        check_complete(built.model, checkpoint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Answerer(
        built.model.eval().to(device),
        Prompter(built.tokenizer, built.image_tokens, config.stages[stage].max_text_length),
        cutter_of(config, built.architecture.image_size),
        stage,
        config,
    )
