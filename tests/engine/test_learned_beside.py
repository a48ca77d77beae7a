"""A checkpoint does not hold the language model, nor how pixels are normalised: whoever goes on from it or asks it has the same ones, or is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from panollava import events
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.evaluation.answer import load
from panollava.events import Note
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest

OTHER_WEIGHTS, OTHER_MEAN = "language_model is one whose weights are others", "vision_model is one whose image processor has another mean or std"


def train(config: RunConfig, directory: Path, **start: Any) -> Path:
    return train_stage(StageJob(config, Stage.finetune, directory, **start), StopRequest(directory))


@pytest.fixture(scope="module")
def own(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Models that lie where they can be changed, and adapters, which a checkpoint does hold."""
    home = tmp_path_factory.mktemp("models")
    for name in ("vision_model", "language_model"):
        shutil.copytree(getattr(config, name), home / name)
    here = {name: str(home / name) for name in ("vision_model", "language_model")}
    return config.model_copy(update={**here, "lora_r": 2, "example_predictions": 0})


@pytest.fixture(scope="module")
def plain_run(own: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plain")
    train(own.without_adapters(), directory)
    return directory


@pytest.fixture(scope="module")
def run(own: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    train(own, directory)
    return directory


@pytest.fixture(scope="module")
def louder(own: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model of the same sizes."""
    directory = tmp_path_factory.mktemp("louder")
    shutil.copytree(own.language_model, directory, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    model.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def darker(own: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The vision encoder with another mean in its image processor."""
    directory = tmp_path_factory.mktemp("darker")
    shutil.copytree(own.vision_model, directory, dirs_exist_ok=True)
    file = directory / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    return str(directory)


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def test_a_stage_is_not_resumed_beside_other_models(own: RunConfig, run: Path, louder: str, darker: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=OTHER_WEIGHTS):
        train(own.model_copy(update={"language_model": louder}), tmp_path, resume=last(run))
    with pytest.raises(BadInput, match=OTHER_MEAN):
        train(own.model_copy(update={"vision_model": darker}), tmp_path, resume=last(run))


def test_models_that_were_moved_are_the_same_ones(own: RunConfig, run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(own.language_model, tmp_path / "moved")
    train(own.model_copy(update={"language_model": str(moved)}), tmp_path / "run", resume=last(run))


def test_a_stage_that_starts_from_weights_that_learned_beside_others_says_so(own: RunConfig, run: Path, louder: str, tmp_path: Path) -> None:
    train(own.model_copy(update={"language_model": louder}), tmp_path, init_from=last(run))
    warnings = [event.text for _, event in events.read(tmp_path / events.EVENTS_FILE) if isinstance(event, Note) and event.level == "warning"]
    assert any(f"has learned beside other models: {OTHER_WEIGHTS}" in text for text in warnings)


def test_a_complete_file_does_not_start_a_stage_beside_another_language_model_than_its_own(
    own: RunConfig, plain_run: Path, louder: str, tmp_path: Path
) -> None:
    final = plain_run / "model_final.safetensors"
    with pytest.raises(BadInput, match=r"language_model is .*, and its weights are not those that .*model_final\.safetensors holds"):
        train(own.without_adapters().model_copy(update={"language_model": louder}), tmp_path, init_from=final)
    train(own.without_adapters(), tmp_path / "same", init_from=final)


def test_a_checkpoint_whose_language_model_was_given_other_weights_is_not_asked(own: RunConfig, run: Path, louder: str) -> None:
    load(last(run))
    weights = Path(own.language_model) / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes((Path(louder) / "model.safetensors").read_bytes())
    try:
        with pytest.raises(BadInput, match=OTHER_WEIGHTS):
            load(last(run))
    finally:
        weights.write_bytes(before)
    assert load(run / "model_final.safetensors").model.language is not None
