"""What an evaluation says of itself in `metrics.json`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from panollava.metrics import captions, grounding
from panollava.metrics.bootstrap import RESAMPLES, Interval
from panollava.metrics.captions import CaptionScores, Condition, Prediction
from panollava.metrics.diagnosis import Diagnosis, diagnosis, paired
from panollava.metrics.grounding import Figures, FigureScore
from panollava.metrics.panel import ELSEWHERE, SEAM, Drawn, drawn, panel
from panollava.metrics.records import read_whole

PREDICTIONS_FILE = "predictions.jsonl"
GROWING_FILE = PREDICTIONS_FILE + ".part"
"""Where answers are until all are given."""
METRICS_FILE = "metrics.json"
SETTINGS_FILE = "evaluation.json"
"""What an evaluation's answers depend on; only answers that depend on the same are kept."""


class Scores(BaseModel):
    """Scores of each condition that was asked. Grounding is empty where the dataset has no ground truth."""

    captions: dict[Condition, CaptionScores]
    grounding: dict[Condition, dict[str, FigureScore]] = Field(description="Condition -> figure -> score.")
    diagnoses: dict[Condition, Diagnosis] = Field({}, description="Control -> what it says of the model.")

    @property
    def controls(self) -> "Scores":
        """Everything but the image itself."""
        grounded = {condition: each for condition, each in self.grounding.items() if condition != "image"}
        return Scores(captions={name: each for name, each in self.captions.items() if name != "image"}, grounding=grounded, diagnoses=self.diagnoses)


class Report(Scores):
    """The scores, and what a later comparison needs of the dataset. Other keys of the file (checkpoint, config) are not read here."""

    model_config = ConfigDict(extra="ignore")

    figures: dict[str, list[str]] = Field({}, description="The dataset's vocabulary of figures.")
    chance: dict[str, float] = Field({}, description="Accuracy of the best answer without looking, by figure.")


def scores(
    predictions: Iterable[Prediction], figures: Figures | None = None, turn: Sequence[str] | None = None, *, resamples: int = RESAMPLES
) -> Scores:
    """Score every condition. `turn` are the dataset's direction words. Raises BadInput for repeated questions and unknown words."""
    answers: dict[Condition, Sequence[Prediction]] = {**captions.by_condition(predictions)}
    image = answers.get("image", [])
    controls = {condition: paired(image, each) for condition, each in answers.items() if condition != "image"}
    answers |= {condition: each for condition, each in controls.items() if each}
    figured = {condition: drawn(panel(each, figures), resamples) for condition, each in answers.items()}
    grounded = {condition: _figures(each, figures or {}, figured[condition].intervals) for condition, each in answers.items()}
    return Scores(
        captions={condition: _captions(each) for condition, each in figured.items()},
        grounding={condition: figure_scores for condition, figure_scores in grounded.items() if figure_scores},
        diagnoses={
            condition: diagnosis(image, each, (figured["image"], figured[condition]), turn, resamples) for condition, each in controls.items() if each
        },
    )


def _captions(each: Drawn) -> CaptionScores:
    own = {name: interval for name, interval in each.intervals.items() if name not in each.panel.grounding.names}
    return captions.summary(each.panel.samples).model_copy(update={"intervals": own})


def _figures(answers: Sequence[Prediction], figures: Figures, sure: Mapping[str, Interval]) -> dict[str, FigureScore]:
    scored = grounding.score(answers, figures) if figures else {}
    parts = {"interval": "", "seam_interval": f", {SEAM}", "elsewhere_interval": f", {ELSEWHERE}"}
    return {figure: score.model_copy(update={field: sure.get(figure + part) for field, part in parts.items()}) for figure, score in scored.items()}


def report(
    predictions: Iterable[Prediction], figures: Figures | None = None, turn: Sequence[str] | None = None, *, resamples: int = RESAMPLES
) -> Report:
    """The scores of an evaluation with the vocabulary they were judged by. Raises BadInput as `scores` does."""
    scored = scores(predictions, figures, turn, resamples=resamples)
    return Report(
        captions=scored.captions,
        grounding=scored.grounding,
        diagnoses=scored.diagnoses,
        figures={figure: list(phrases) for figure, phrases in (figures or {}).items()},
    )


def read_report(directory: Path) -> Report:
    """The `metrics.json` of an evaluation's directory. Raises BadInput."""
    return read_whole(directory / METRICS_FILE, Report)
