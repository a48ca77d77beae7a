"""What loading a checkpoint says: how much was taken, what was on one side only, and which setting explains a difference."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.model.panollava import PanoLlava
from panollava.model.parts import build
from panollava.stages import Stage
from panollava.training.weights import load_weights


@pytest.fixture
def model(config: RunConfig) -> PanoLlava:
    return build(config).model


def written(path: Path, model: PanoLlava, *parts: str, **more: torch.Tensor) -> Path:
    """A file with these parts of a model."""
    state = {name: tensor for name, tensor in model.state_dict().items() if name.partition(".")[0] in parts}
    save_file(state | {name.replace("__", "."): tensor for name, tensor in more.items()}, path)
    return path


def test_all_tensors_of_the_file_are_counted_and_parts_that_stay_as_built_are_named(model: PanoLlava, tmp_path: Path) -> None:
    report = load_weights(model, written(tmp_path / "vision.safetensors", model, "vision"), Stage.vision)
    count = len(model.vision.state_dict())
    assert str(report).startswith(f"loaded {count}/{count} tensors; not in the file, as built: language (")
    assert "projection (2), resampler (6)" in str(report)


def test_a_language_model_that_stage_vision_does_without_is_named(config: RunConfig, model: PanoLlava, tmp_path: Path) -> None:
    path = written(tmp_path / "all.safetensors", model, "vision", "resampler", "projection", language__norm=torch.zeros(3))
    report = load_weights(build(config, language=False).model, path, Stage.finetune)
    assert str(report).endswith("in the file, not needed here: language (1)")


@pytest.mark.parametrize(
    ("parts", "more", "said"),
    [
        (("vision",), {}, r"this run's resampler or resampler_width, resampler_width or language_model: 8 tensors differ"),
        (("vision", "resampler", "projection"), {"projection__weight": torch.zeros(2, 2)}, r"projection.weight is \[2, 2\] there and \["),
        (("vision", "resampler", "projection"), {"resampler__gate": torch.zeros(2)}, "this run's resampler or resampler_width: 1 tensors differ"),
        (("resampler", "projection"), {}, "this run's vision_model"),
    ],
)
def test_a_difference_is_an_error_that_names_the_setting(
    model: PanoLlava, tmp_path: Path, parts: tuple[str, ...], more: dict[str, torch.Tensor], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        load_weights(model, written(tmp_path / "other.safetensors", model, *parts, **more), Stage.resampler)
