"""Predictions as they lie in `predictions.jsonl`, and their caption scores: BLEU, ROUGE-L, CIDEr-D, METEOR, grouped by (url, query).

An empty prediction counts and lowers the score. Scores of single questions are kept, so that a resampling need not read a word again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from panollava.config import Control
from panollava.errors import BadInput
from panollava.metrics.bleu import bleu, counts
from panollava.metrics.bootstrap import Interval
from panollava.metrics.cider import cider
from panollava.metrics.meteor import meteor
from panollava.metrics.ngrams import Floats, grams, sentences
from panollava.metrics.ratios import Ratios
from panollava.metrics.records import read_lines
from panollava.metrics.rouge import rouge_l
from panollava.metrics.tokens import tokenize
from panollava.metrics.traits import traits

Condition = Literal["image", Control]
CONDITIONS: tuple[Condition, ...] = ("image", *get_args(Control))
METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor_exact_stem")


class Prediction(BaseModel):
    """One answer and what it is measured against: a line of `predictions.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    query: str
    references: list[str] = Field(min_length=1)
    prediction: str = Field(description="The decoded answer; may be empty.")
    condition: Condition = Field("image", description="What the model was shown: the image, or one of the controls.")
    asked: str | None = Field(None, description="The words it was asked in, where the control changes them.")
    truncated: bool | None = Field(None, description="Whether the answer was cut at max_new_tokens; None where nobody noted it.")
    kind: str | None = Field(None, description="Kind of question, where the dataset tells.")
    template: str | None = Field(None, description="Wording of the question, where the dataset tells.")
    expect: dict[str, str] | None = Field(None, description="Figure -> word that a right answer names; None where there is no ground truth.")
    seam: bool | None = Field(None, description="Whether the object asked about lies across the panorama's seam.")
    image_sha256: str | None = Field(None, description="Of the file of the panorama asked about; None where nobody noted it.")


class CaptionScores(BaseModel):
    """Scores over all questions. CIDEr is between 0 and 10; papers print it times 10 or 100. The others are between 0 and 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider: float
    meteor_exact_stem: float | None = Field(
        None, description="METEOR of exact words and stems. None in a report from before it was measured, as below."
    )
    groups: int = Field(description="Questions: distinct (url, query).")
    references: int = Field(description="References of all questions.")
    mean_length: float = Field(description="Words per prediction.")
    blank_rate: float = Field(description="Share of predictions without a word.")
    length_ratio: float | None = Field(None, description="Words of the predictions to words of the references nearest in length.")
    distinct_2: float | None = Field(None, description="Distinct pairs of neighbouring words among all pairs of the predictions.")
    duplicate_rate: float | None = Field(None, description="Share of predictions that only repeat another one, word for word.")
    truncated_rate: float | None = Field(None, description="Share of predictions cut at max_new_tokens.")
    intervals: dict[str, Interval] = Field({}, description="Score -> its 95 % interval over questions drawn again.")


# G groups (questions), b draws of a resampling
@dataclass(frozen=True)
class Samples:
    """What each question adds to the scores, in the order of the predictions."""

    bleu: Floats  # [G, bleu.COUNTS]
    rouge_l: Floats  # [G]
    cider: Floats  # [G]
    meteor: Floats  # [G]
    words: Floats  # [G] in the prediction
    references: int
    traits: Ratios

    def metrics(self, weights: Floats) -> Floats:
        """METRICS of samples in which each question counts so many times. [b, G] -> [b, 7]"""
        size = weights.sum(axis=1, keepdims=True)
        means = weights @ np.stack([self.rouge_l, self.cider, self.meteor], axis=1) / size
        return np.concatenate([bleu(weights @ self.bleu), means], axis=1)


def read_predictions(path: Path) -> list[Prediction]:
    """Every line of a `predictions.jsonl`. Raises BadInput naming the line that is none."""
    return read_lines(path, Prediction)


def by_condition(predictions: Iterable[Prediction]) -> dict[Condition, list[Prediction]]:
    """The predictions of each condition that occurs, the image first."""
    sorted_out: dict[Condition, list[Prediction]] = {condition: [] for condition in CONDITIONS}
    for prediction in predictions:
        sorted_out[prediction.condition].append(prediction)
    return {condition: members for condition, members in sorted_out.items() if members}


def samples(predictions: Sequence[Prediction]) -> Samples:
    """Scores of single questions. Raises BadInput for none at all, and for a (url, query) that comes twice."""
    if not predictions:
        raise BadInput("There are no predictions to score.")
    if len(conditions := {each.condition for each in predictions}) > 1:
        raise ValueError(f"Conditions are scored one at a time (by_condition), these are mixed: {sorted(conditions)}.")
    check_distinct(predictions)
    said = [tokenize(each.prediction) for each in predictions]
    wanted = [[tokenize(reference) for reference in each.references] for each in predictions]
    text = sentences(said, wanted)
    orders = list(grams(text))
    counted = counts(text, orders)
    return Samples(
        bleu=counted,
        rouge_l=np.array([rouge_l(words, references) for words, references in zip(said, wanted, strict=True)]),
        cider=cider(text, orders),
        meteor=np.array([meteor(words, references) for words, references in zip(said, wanted, strict=True)]),
        words=text.lengths[: text.groups].astype(np.float64),
        references=int(text.references.sum()),
        traits=traits(said, text, orders[1], counted[:, 1], [each.truncated for each in predictions]),
    )


def score(predictions: Sequence[Prediction]) -> CaptionScores:
    """Scores of the predictions of one condition. Raises BadInput as `samples` does."""
    return summary(samples(predictions))


def summary(each: Samples) -> CaptionScores:
    groups = len(each.words)
    everything = np.ones((1, groups))
    values = dict(zip(METRICS, each.metrics(everything)[0].tolist(), strict=True))
    traits = dict(zip(each.traits.names, each.traits(everything)[0].tolist(), strict=True))
    return CaptionScores(**values, **traits, groups=groups, references=each.references, mean_length=float(each.words.mean()))


def check_distinct(predictions: Iterable[Prediction]) -> None:
    """Raises BadInput naming questions that are answered more than once."""
    times = Counter((each.url, each.query) for each in predictions)
    twice = [f"{query!r} of {url} ({count} times)" for (url, query), count in times.items() if count > 1]
    if twice:
        more = f", and {len(twice) - 3} more" if len(twice) > 3 else ""
        raise BadInput(f"Each question must be answered once, with all its references on one line; repeated: {', '.join(twice[:3])}{more}.")
