"""What an evaluation says of itself in `metrics.json`."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from panollava.metrics import captions, grounding
from panollava.metrics.captions import CaptionScores, Condition, Prediction
from panollava.metrics.grounding import Figures, FigureScore
from panollava.metrics.records import read_whole

PREDICTIONS_FILE = "predictions.jsonl"
METRICS_FILE = "metrics.json"


class Scores(BaseModel):
    """Scores of each condition that was asked. Grounding is empty where the dataset has no ground truth."""

    captions: dict[Condition, CaptionScores]
    grounding: dict[Condition, dict[str, FigureScore]] = Field(description="Condition -> figure -> score.")


class Report(Scores):
    """The scores, and what a later comparison needs of the dataset. Other keys of the file (checkpoint, config) are not read here."""

    model_config = ConfigDict(extra="ignore")

    figures: dict[str, list[str]] = Field({}, description="The dataset's vocabulary of figures.")
    chance: dict[str, float] = Field({}, description="Accuracy of the best answer without looking, by figure.")


def scores(predictions: Iterable[Prediction], figures: Figures | None = None) -> Scores:
    """Score every condition. Raises BadInput for repeated questions and for words outside the vocabulary."""
    conditions = captions.by_condition(predictions)
    grounded = {condition: grounding.score(each, figures) for condition, each in conditions.items()} if figures else {}
    return Scores(
        captions={condition: captions.score(each) for condition, each in conditions.items()},
        grounding={condition: figure_scores for condition, figure_scores in grounded.items() if figure_scores},
    )


def report(predictions: Iterable[Prediction], figures: Figures | None = None) -> Report:
    """The scores of an evaluation with the vocabulary they were judged by. Raises BadInput as `scores` does."""
    scored = scores(predictions, figures)
    return Report(
        captions=scored.captions, grounding=scored.grounding, figures={figure: list(phrases) for figure, phrases in (figures or {}).items()}
    )


def read_report(directory: Path) -> Report:
    """The `metrics.json` of an evaluation's directory. Raises BadInput."""
    return read_whole(directory / METRICS_FILE, Report)
