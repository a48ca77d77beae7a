"""A checkpoint that answers questions: everything it needs to know is in the checkpoint itself.

Legend: U panoramas, V views, S view side, N image tokens, L language width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from panollava import rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.model.panollava import PanoLlava
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.stages import RECIPES, Stage
from panollava.training.weights import describe, load_weights
from panollava.views import Cutter


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

    @torch.inference_mode()
    def encode(self, views: Tensor) -> Tensor:
        """uint8 views [U, V, S, S, 3] -> image tokens [U, N, L]."""
        return self.model.image_tokens(views.to(self.device))

    def answer(self, image_tokens: Tensor, queries: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy answers to one question per row of image tokens [B, N, L]. The batch changes no answer: prompts are padded on the left."""
        ids, mask, _ = self.prompter.collate([self.prompter.question(query) for query in queries])
        with torch.inference_mode():
            new = self.model.generate(
                image_tokens, ids.to(self.device), mask.to(self.device), max_new_tokens=max_new_tokens, stop=self.prompter.stop, pad=self.prompter.pad
            )
        return self.prompter.decode(new)


def load(checkpoint: Path, *, untrained_seed: int | None = None) -> Answerer:
    """Load a checkpoint of stage resampler or finetune. With `untrained_seed`: the same pretrained models under a bridge that has learned nothing."""
    config, stage, architecture = describe(checkpoint)
    if stage is Stage.vision:
        raise BadInput(
            f"{checkpoint}: a checkpoint of stage vision has no trained path to the language model; evaluate a resampler or finetune checkpoint."
        )
    if untrained_seed is not None:
        config = config.model_copy(update={"seed": untrained_seed})
    built = build(config, adapters="lora" in RECIPES[stage].optional)
    rundir.check_same_architecture(checkpoint, stage, architecture, built.architecture)
    if untrained_seed is None:
        load_weights(built.model, checkpoint, stage)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Answerer(
        built.model.eval().to(device),
        Prompter(built.tokenizer, built.image_tokens, config.stages[stage].max_text_length),
        Cutter(built.layout, built.architecture.image_size),
        stage,
        config,
    )
