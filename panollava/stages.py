"""The three stages as data: their order, what learns in each, and which loss they minimise."""

from dataclasses import dataclass
from enum import StrEnum

FEWEST = 4
"""Panoramas below which a batch has no statistics across images, and no overlap loss."""


class Stage(StrEnum):
    """A step of the chain, in training order."""

    vision = "vision"
    resampler = "resampler"
    finetune = "finetune"

    @property
    def number(self) -> int:
        """1, 2 or 3: the N of a log file's `stageN_<stage>`."""
        return list(Stage).index(self) + 1


@dataclass(frozen=True)
class Recipe:
    """What one stage does. A part is any dotted piece of a parameter's name. Loss `overlap` is the one that a run's `overlap_loss` names."""

    trains: frozenset[str]
    loss: str
    needs_text: bool
    optional: frozenset[str] = frozenset()
    """Parts that learn too in runs that have them."""


RECIPES = {
    Stage.vision: Recipe(frozenset({"vision", "expander"}), "overlap", needs_text=False),
    Stage.resampler: Recipe(frozenset({"vision", "resampler", "projection"}), "autoregressive", needs_text=True),
    Stage.finetune: Recipe(frozenset({"resampler", "projection"}), "autoregressive", needs_text=True, optional=frozenset({"lora"})),
}


def parts(name: str) -> set[str]:
    """The parts that a parameter or module of this name belongs to: its dotted pieces, and `lora` for an adapter of peft's."""
    pieces = set(name.split("."))
    return pieces | ({"lora"} if any(piece.startswith("lora_") for piece in pieces) else set())


def learned(stage: Stage) -> frozenset[str]:
    """Parts that some stage up to and including this one has changed; a checkpoint of the stage need hold no other."""
    return frozenset().union(*(RECIPES[each].trains | RECIPES[each].optional for each in Stage if each.number <= stage.number))
