"""What a control says of the model: whether its answers change when they should, and what the right image is worth.

A control asks the same questions with something taken away or moved (blank, shuffled, untrained, query_swap, rolled). Each answer is held
against the answer to the image itself, question by question, so no ground truth is needed for agreement.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from panollava.metrics.bootstrap import RESAMPLES, Interval, draws, spans
from panollava.metrics.captions import METRICS, Condition, Prediction
from panollava.metrics.directions import TURN, speaks_of_directions
from panollava.metrics.grounding import turn
from panollava.metrics.ngrams import Floats
from panollava.metrics.panel import Drawn
from panollava.metrics.ratios import Ratios, ratios
from panollava.metrics.rouge import rouge_l
from panollava.metrics.tokens import tokenize

REWORDED: frozenset[Condition] = frozenset({"rolled", "query_swap"})
"""Controls that may ask in other words; an answer that does not note them is from before they were noted, and belongs to no question."""
UNDIRECTED, DIRECTED = "no direction word", "direction word"


class Estimate(BaseModel):
    """A figure with how sure it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    n: int = Field(description="Questions it is taken over.")
    interval: Interval = Field(description="95 %, over questions drawn again.")


class Diagnosis(BaseModel):
    """One control against the image itself, on the same questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    agreement: dict[str, Estimate] = Field(
        description="`same`: share of answers that are the same words; `likeness`: ROUGE-L of one with the other. Under `rolled` the answer to the "
        "image is turned first, and questions and answers with a direction word are told from those without."
    )
    image_minus: dict[str, Estimate] = Field(description="Score -> with the image minus under the control, on the same draws.")

    @property
    def headlines(self) -> dict[str, Estimate]:
        """Of `image_minus` what a list of several controls has room for: CIDEr and whole figures."""
        return {name: each for name, each in self.image_minus.items() if name == "cider" or (name not in METRICS and ", " not in name)}


def paired(image: Sequence[Prediction], control: Sequence[Prediction]) -> list[Prediction] | None:
    """The control's answers in the order of the questions of the image's; None where they do not answer the same ones."""
    if any(each.condition in REWORDED and each.asked is None for each in control):
        return None
    answers = {(each.url, each.query): each for each in control}
    if answers.keys() != {(each.url, each.query) for each in image}:
        return None
    return [answers[each.url, each.query] for each in image]


def diagnosis(
    image: Sequence[Prediction], control: Sequence[Prediction], drawn: tuple[Drawn, Drawn], phrases: Sequence[str] | None, resamples: int = RESAMPLES
) -> Diagnosis:
    """From answers in one order of questions, and the figures of both. `phrases` are the data's direction words; English ones if None."""
    ours, theirs = drawn
    names = [*METRICS, *(name for name in ours.panel.grounding.names if name in theirs.panel.grounding.names)]
    counts = dict(zip(ours.panel.names, ours.panel.counts, strict=True))
    agreed = agreement(image, control, TURN if phrases is None else phrases)
    agreed_on = agreed(np.ones((1, len(image))))[0]
    return Diagnosis(
        agreement=_estimates(agreed.names, agreed_on, draws(agreed, len(image), resamples=resamples), agreed.counts),
        image_minus=_estimates(names, *ours.minus(theirs, names), [counts[name] for name in names]),
    )


def _estimates(names: Sequence[str], values: Floats, drawn: Floats, counts: Sequence[int]) -> dict[str, Estimate]:
    each = zip(names, values.tolist(), counts, spans(drawn), strict=True)
    return {name: Estimate(value=value, n=n, interval=interval) for name, value, n, interval in each}


def agreement(image: Sequence[Prediction], control: Sequence[Prediction], phrases: Sequence[str]) -> Ratios:
    """Each answer under a control against the answer to the image, which is turned with the panorama where that was rolled."""
    rolled = control[0].condition == "rolled"
    expected = [turn(each.prediction, phrases) if rolled else each.prediction for each in image]
    likeness = np.array([_likeness(said.prediction, wanted) for said, wanted in zip(control, expected, strict=True)])
    values = {"same": (likeness == 1).astype(np.float64), "likeness": likeness}
    parts = {"": np.ones(len(image))}
    if rolled:
        directed = np.array([_directed(*pair, phrases) for pair in zip(image, control, strict=True)], np.float64)
        parts |= {f", {UNDIRECTED}": 1 - directed, f", {DIRECTED}": directed}
    return ratios(len(image), {name + part: (each * where, where) for name, each in values.items() for part, where in parts.items()})


def _likeness(said: str, wanted: str) -> float:
    """ROUGE-L; 1 exactly where both are the same words, also none at all."""
    ours, theirs = tokenize(said), tokenize(wanted)
    return 1.0 if ours == theirs else min(rouge_l(ours, [theirs]), 1 - 1e-9)


def _directed(image: Prediction, control: Prediction, phrases: Sequence[str]) -> bool:
    return any(speaks_of_directions(text, phrases) for text in (image.query, image.prediction, control.prediction))
