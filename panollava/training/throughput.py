"""How fast a training is: samples and tokens a second and, where the device is known, how much of its peak the model's arithmetic makes use of."""

from dataclasses import dataclass
from typing import Any

import torch

from panollava import flops, ranks
from panollava.flops import Language, Vision
from panollava.stages import RECIPES
from panollava.training.module import StageModule
from panollava.training.steps import Step


@dataclass(frozen=True)
class Work:
    """What is in a step. `views` is the shape [U, V, S, S, 3] of what the encoder sees; no token of `tokens` is padding, image tokens are in it."""

    samples: int
    views: tuple[int, ...]
    tokens: int
    supervised: int

    @classmethod
    def of(cls, step: Step) -> "Work":
        """What this rank has of a step."""
        parts = [batch for batch, weight in zip(step.batches, step.weights, strict=True) if weight]
        return cls(
            samples=sum(len(batch.image_index) for batch in parts),
            views=(sum(len(batch.pixels) for batch in parts), *(parts[0].pixels.shape[1:] if parts else ())),
            tokens=sum(batch.tokens for batch in parts),
            supervised=sum(batch.supervised for batch in parts),
        )


class Throughput:
    """Rates of a stage's steps. Without a known peak there is no MFU."""

    def __init__(self, module: StageModule) -> None:
        self.stage, self.peak, self.ranks = module.stage, _peak(module), ranks.count()
        vision: Any = module.model.vision
        language: Any = module.model.language
        self.vision: dict[str, Any] = vision.config.to_dict()
        self.language = Language.of(language.config.to_dict()) if language and RECIPES[module.stage].needs_text else None

    def rates(self, step: Step, seconds: float) -> dict[str, float]:
        """Metrics of a step that took so long. All ranks have about equally much; MFU is of one device."""
        whole = self.ranks / seconds
        samples = tokens = supervised = 0
        for batch, weight in zip(step.batches, step.weights, strict=True):
            if weight:
                samples, tokens, supervised = samples + len(batch.image_index), tokens + batch.tokens, supervised + batch.supervised
        rates = {"samples_per_second": samples * whole}
        if tokens:
            rates |= {"tokens_per_second": tokens * whole, "supervised_tokens_per_second": supervised * whole}
        if self.peak is not None:
            rates["mfu"] = self.flops(Work.of(step)) / seconds / self.peak
        return rates

    def flops(self, work: Work) -> float:
        """What the step's arithmetic takes, sequences counted as equally long. A panorama that comes with its features is not encoded."""
        seen = 0.0
        if panoramas := work.views[0]:
            vision = Vision.of(self.vision, image_size=work.views[2], views=work.views[1])
            seen = panoramas * flops.per_panorama(self.stage, vision)
        if self.language is None or not work.samples:
            return seen
        return seen + work.samples * flops.per_sequence(self.language, work.tokens / work.samples, work.supervised / work.samples)


def _peak(module: StageModule) -> float | None:
    """Of a GPU that computes in half precision; the table knows no other."""
    if module.device.type != "cuda" or module.trainer.precision == "32-true":
        return None
    return flops.peak(torch.cuda.get_device_name(module.device))
