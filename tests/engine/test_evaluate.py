"""An evaluation asks every question, shows what it says it shows, and counts what it got."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from panollava.config import EvaluateConfig, RunConfig
from panollava.errors import BadInput
from panollava.evaluation.ask import ask
from panollava.evaluation.evaluate import evaluate
from panollava.evaluation.questions import Question, turned
from panollava.stages import Stage
from panollava.training.fit import StageJob, train_stage
from panollava.training.stop import StopRequest


@pytest.fixture(scope="module")
def checkpoint(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resampler checkpoint of a few steps: enough to answer something."""
    directory = tmp_path_factory.mktemp("runs") / "vlm_resampler"
    return train_stage(StageJob(config, Stage.resampler, directory), StopRequest(directory))


@pytest.fixture(scope="module")
def evaluation(checkpoint: Path, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    controls = ("blank", "shuffled", "rolled", "untrained")
    directory = tmp_path_factory.mktemp("evaluation")
    request = EvaluateConfig(
        checkpoint=str(checkpoint), csv=str(demo_data / "test.csv"), controls=controls, output_dir=str(directory), max_new_tokens=12
    )
    return evaluate(request)


def predictions(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]


def test_every_question_of_the_table_is_asked_once_under_every_condition(evaluation: Path, demo_data: Path) -> None:
    truth = [json.loads(line) for line in (demo_data / "test.truth.jsonl").read_text().splitlines()]
    asked = Counter(each["condition"] for each in predictions(evaluation))
    assert asked == dict.fromkeys(("image", "blank", "shuffled", "rolled", "untrained"), len(truth))


def test_the_metrics_count_the_groups_and_references_of_the_table(evaluation: Path, demo_data: Path) -> None:
    rows = len((demo_data / "test.csv").read_text().splitlines()) - 1
    metrics = json.loads((evaluation / "metrics.json").read_text())
    image = metrics["captions"]["image"]
    assert image["references"] == rows
    assert image["groups"] == rows // 3
    assert set(metrics["chance"]) <= {"colour", "shape", "direction"}


def test_two_questions_about_one_panorama_get_two_answers(checkpoint: Path, demo_data: Path) -> None:
    image = next((demo_data / "images").glob("test_*.jpg"))
    assert ask(checkpoint, image, "what is behind", 12) != ask(checkpoint, image, "where is the red circle", 12)


def test_an_answer_is_the_same_alone_and_in_an_evaluation(checkpoint: Path, evaluation: Path, demo_data: Path) -> None:
    shown = [each for each in predictions(evaluation) if each["condition"] == "image"][:3]
    for each in shown:
        assert ask(checkpoint, demo_data / str(each["url"]), str(each["query"]), 12) == each["prediction"]


def test_rolling_turns_question_answers_and_truth_together() -> None:
    question = Question(0, "a.jpg", "what is behind", ("a red circle", "a red circle on the left"), expect={"direction": "on the left"})
    (after,) = turned([question], ["in front", "on the right", "behind", "on the left"])
    assert after.query == "what is on the left"
    assert after.references == ("a red circle", "a red circle in front")
    assert after.expect == {"direction": "in front"}


def test_a_vision_checkpoint_cannot_answer_and_says_so(config: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    best = train_stage(StageJob(config, Stage.vision, tmp_path), StopRequest(tmp_path))
    with pytest.raises(BadInput, match="no trained path to the language model"):
        evaluate(EvaluateConfig(checkpoint=str(best), csv=str(demo_data / "test.csv"), output_dir=str(tmp_path / "evaluation")))


def test_two_steps_and_an_answer_on_real_photographs(config: RunConfig, sample_dir: Path, tmp_path: Path) -> None:
    table = str(sample_dir / "downtest.csv")
    two = config.stages.resampler.model_copy(update={"max_steps": 2, "batch_size": 4, "max_text_length": 256})
    real = config.model_copy(update={"csv_train": (table,), "csv_val": (table,), "stages": config.stages.model_copy(update={"resampler": two})})
    best = train_stage(StageJob(real, Stage.resampler, tmp_path), StopRequest(tmp_path))
    answer = ask(best, next((sample_dir / "images").glob("*.jpg")), "interior", 8)
    assert isinstance(answer, str)
    losses = [json.loads(line)["values"].get("train_loss") for line in (tmp_path / "events.jsonl").read_text().splitlines() if '"metric"' in line]
    assert np.isfinite([loss for loss in losses if loss is not None]).all()
