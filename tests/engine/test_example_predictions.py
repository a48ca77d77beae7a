"""The same few validation questions are answered after every validation, as an evaluation would, and the training does not feel it."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panollava import events
from panollava.config import RunConfig
from panollava.data.images import load_panorama
from panollava.evaluation import answer
from panollava.evaluation.questions import Question
from panollava.events import Metric, Sample
from panollava.model.panollava import PanoLlava
from panollava.stages import Stage
from panollava.training.examples import LONGEST, chosen
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.stop import Stopped, StopRequest


def told(directory: Path, kind: Any) -> list[Any]:
    path = directory / events.EVENTS_FILE
    return [event for _, event in events.read(path) if isinstance(event, kind)] if path.exists() else []


def train(config: RunConfig, directory: Path, stage: Stage = Stage.resampler, stop: type[StopRequest] = StopRequest, **start: Any) -> Path:
    return train_stage(StageJob(config, stage, directory, **start), stop(directory))


def curve(directory: Path) -> list[tuple[int, str, float]]:
    clocks = {"samples_per_second", "tokens_per_second", "supervised_tokens_per_second", "data_wait"}
    return [(event.step, name, value) for event in told(directory, Metric) for name, value in event.values.items() if name not in clocks]


@pytest.fixture(scope="module")
def two_epochs(config: RunConfig, demo_data: Path) -> RunConfig:
    """Three steps on a few rows, validated after the second and the third."""
    train, valid = ((demo_data / f"{name}.csv").read_text().splitlines(keepends=True) for name in ("train", "valid"))
    (demo_data / "few.csv").write_text("".join(train[:9]))
    (demo_data / "some.csv").write_text("".join([valid[0], *valid[1::9], *valid[2::9]]))
    stage = config.stages.resampler.model_copy(update={"epochs": 2, "max_steps": 3, "batch_size": 4})
    stages = config.stages.model_copy(update={"resampler": stage})
    return config.model_copy(
        update={"stages": stages, "csv_train": (str(demo_data / "few.csv"),), "csv_val": (str(demo_data / "some.csv"),), "example_predictions": 3}
    )


@pytest.fixture(scope="module")
def watched(two_epochs: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("watched")
    train(two_epochs, directory)
    return directory


def test_every_validation_answers_the_same_questions(watched: Path) -> None:
    validated = [event.step for event in told(watched, Metric) if "val_loss" in event.values]
    samples = told(watched, Sample)
    assert len(validated) == 2
    assert [sample.step for sample in samples] == [step for step in validated for _ in range(3)]
    asked = [(sample.url, sample.query) for sample in samples]
    assert asked[:3] == asked[3:]
    assert len({url for url, _ in asked}) == len({query for _, query in asked}) == 3


def test_an_answer_is_the_one_that_an_evaluation_of_the_checkpoint_gives(watched: Path, demo_data: Path) -> None:
    last = told(watched, Sample)[-3:]
    answerer = answer.load(watched / "checkpoints" / "last.ckpt")
    for sample in last:
        tokens = answerer.encode(torch.from_numpy(answerer.cutter(load_panorama(demo_data / sample.url)))[None])
        assert answerer.answer(tokens, [sample.query], LONGEST) == [sample.prediction]


def test_its_references_are_those_of_all_rows_that_ask_it(watched: Path, demo_data: Path) -> None:
    with (demo_data / "some.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for sample in told(watched, Sample):
        assert sample.references == [row["annotation"] for row in rows if (row["url"], row["query"]) == (sample.url, sample.query)]


def test_losses_are_the_same_to_the_last_bit_without_examples(two_epochs: RunConfig, watched: Path, tmp_path: Path) -> None:
    train(two_epochs.model_copy(update={"example_predictions": 0}), tmp_path)
    assert told(tmp_path, Sample) == []
    assert curve(tmp_path) == curve(watched)


def test_a_resumed_training_answers_what_was_left_to_answer(two_epochs: RunConfig, watched: Path, tmp_path: Path) -> None:
    class AfterTwoSteps(StopRequest):
        def __bool__(self) -> bool:
            return len([event for event in told(tmp_path, Metric) if "train_loss" in event.values]) >= 2

    with pytest.raises(Stopped):
        train(two_epochs, tmp_path, stop=AfterTwoSteps)
    train(two_epochs, tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert [sample.model_dump(exclude={"t"}) for sample in told(tmp_path, Sample)] == [
        sample.model_dump(exclude={"t"}) for sample in told(watched, Sample)
    ]  # fmt: skip


def test_the_model_answers_in_evaluation_mode_and_precision_and_leaves_random_numbers_alone(
    two_epochs: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    honest = PanoLlava.generate

    def states() -> str:
        return json.dumps([torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()])  # type: ignore[union-attr]

    def watching(self: PanoLlava, image_tokens: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        before = states()
        answers = honest(self, image_tokens, *rest, **options)
        seen.append((image_tokens.dtype, any(part.training for part in self.modules()), states() == before))
        return answers

    trained: list[bool] = []
    step = StageModule.training_step
    monkeypatch.setattr(PanoLlava, "generate", watching)
    monkeypatch.setattr(StageModule, "training_step", lambda self, *batch: trained.append(self.model.resampler.training) or step(self, *batch))
    train(two_epochs.model_copy(update={"precision": "bf16"}), tmp_path)
    assert seen == [(torch.bfloat16, False, True)] * 2
    assert trained == [True] * 3, "and it learns on after them"


def test_stage_vision_answers_nothing(config: RunConfig, tmp_path: Path) -> None:
    train(config, tmp_path, Stage.vision)
    assert told(tmp_path, Sample) == []


def question(image: int, query: str) -> Question:
    return Question(image, f"{image}.jpg", query, ("This.",))


def test_questions_are_spread_over_the_panoramas_and_differ_in_words() -> None:
    questions = [question(image, query) for image in range(100) for query in ("What?", "Where?", "Who?")]
    picked = chosen(questions, 4)
    assert [each.image for each in picked] == [0, 25, 50, 75]
    assert len({each.query for each in picked}) == 3


def test_few_panoramas_are_asked_more_than_one_question_and_few_questions_are_all_asked() -> None:
    two = [question(image, query) for image in range(2) for query in ("What?", "Where?", "Who?")]
    assert {(each.image, each.query) for each in chosen(two, 4)} > {(0, "What?"), (1, "Where?")}
    assert len({(each.image, each.query) for each in chosen(two, 4)}) == 4
    assert len(chosen(two, 50)) == 6
    assert [each.query for each in chosen([question(3, "What?")], 6)] == ["What?"]
