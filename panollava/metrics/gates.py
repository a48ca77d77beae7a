"""The demo's promises as rows: it looks, it does not guess. Each is a figure of the evaluations set against a bound.

Only for the demo's own data (PanoShapes); other datasets promise nothing.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from panollava.metrics.captions import Condition
from panollava.metrics.grounding import FigureScore

FIGURES = ("colour", "shape", "direction")
BLIND: tuple[Condition, ...] = ("blank", "shuffled", "untrained")
"""Conditions under which nobody can know the answer."""

QUESTIONS = 500
RIGHT = 0.9
ABOVE_CHANCE = 0.1
SEAM_GAP = 0.05
ROLL_GAP = 0.02
LOSS_OF_FINETUNE = 0.02
ROUNDING = 1e-9
"""So that 1 - 0.95 is within 0.05."""

Grounded = Mapping[Condition, Mapping[str, FigureScore]]
"""`Report.grounding` of an evaluation."""


class Gate(BaseModel):
    """One promise: `value` must be at least, or at most, `bound`. A value that was never measured keeps no promise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    value: float | None
    relation: Literal[">=", "<="]
    bound: float
    ok: bool
    n: int = Field(description="Questions behind the value; the fewer, where two values are set against each other.")


def demo_gates(resampler: Grounded, finetune: Grounded, chance: Mapping[str, float]) -> list[Gate]:
    """Every promise for every figure. `chance` is grounding.chance of the demo's training and test split."""
    return [gate for figure in FIGURES for gate in _gates(figure, resampler, finetune, chance.get(figure))]


def _gates(figure: str, resampler: Grounded, finetune: Grounded, chance: float | None) -> list[Gate]:
    after = _score(finetune, "image", figure)
    before = _score(resampler, "image", figure)
    rolled = _score(finetune, "rolled", figure)
    fewest = min(each.n for each in (after, before, rolled, *(_score(finetune, condition, figure) for condition in BLIND)))
    seam_gap, roll_gap = _minus(after.seam_accuracy, after.elsewhere_accuracy), _minus(rolled.accuracy, after.accuracy)
    return [
        _at_least(f"{figure}: questions", float(fewest), QUESTIONS, fewest),
        _at_least(f"{figure}: right after the chain", after.accuracy, RIGHT, after.n),
        *(_blind(figure, condition, _score(finetune, condition, figure), chance) for condition in BLIND),
        _at_most(f"{figure}: seam against elsewhere", _size(seam_gap), SEAM_GAP, min(after.seam_n, after.elsewhere_n)),
        _at_most(f"{figure}: rolled by 90 degrees against not", _size(roll_gap), ROLL_GAP, min(rolled.n, after.n)),
        _at_most(f"{figure}: lost by finetune", _minus(before.accuracy, after.accuracy), LOSS_OF_FINETUNE, min(before.n, after.n)),
    ]


def _blind(figure: str, condition: Condition, score: FigureScore, chance: float | None) -> Gate:
    """Without a known chance there is no bound to keep, so even 0 is too much."""
    name = f"{figure}: right by luck, {condition}"
    return _at_most(name, None if chance is None else score.accuracy, (chance or 0.0) + ABOVE_CHANCE, score.n)


def _score(scores: Grounded, condition: Condition, figure: str) -> FigureScore:
    never = FigureScore(n=0, accuracy=None, seam_n=0, seam_accuracy=None, elsewhere_n=0, elsewhere_accuracy=None)
    return scores.get(condition, {}).get(figure, never)


def _at_least(name: str, value: float | None, bound: float, n: int) -> Gate:
    return Gate(name=name, value=value, relation=">=", bound=bound, ok=value is not None and value >= bound - ROUNDING, n=n)


def _at_most(name: str, value: float | None, bound: float, n: int) -> Gate:
    return Gate(name=name, value=value, relation="<=", bound=bound, ok=value is not None and value <= bound + ROUNDING, n=n)


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _size(gap: float | None) -> float | None:
    return None if gap is None else abs(gap)
