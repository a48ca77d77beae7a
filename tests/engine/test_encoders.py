"""Any vision encoder that yields patch tokens: read as its own processor and its own last norm have it, and never a patch too few."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoImageProcessor

from panollava import architecture
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.model.panollava import Batch
from panollava.model.parts import Built, build
from panollava.stages import Stage
from panollava.training.module import StageModule
from tests.engine import tiny_models

Encoder = Callable[[str], Path]
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 8, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(params=list(tiny_models.ENCODERS))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config_with(config: RunConfig, directory: Path) -> RunConfig:
    return config.model_copy(update={"vision_model": str(directory)})


def built_with(config: RunConfig, directory: Path) -> Built:
    built = build(config_with(config, directory), language=False)
    built.model.eval()
    return built


@pytest.fixture
def directory(encoder: Encoder, family: str) -> Path:
    return encoder(family)


def test_what_an_encoder_is_given_is_what_its_own_processor_makes_of_the_same_view(config: RunConfig, directory: Path) -> None:
    model = built_with(config, directory).model
    seen: dict[str, torch.Tensor] = {}
    handle = model.vision.register_forward_pre_hook(lambda module, args, given: seen.update(given), with_kwargs=True)
    with torch.no_grad():
        model.patches(PIXELS)
    handle.remove()
    processor = AutoImageProcessor.from_pretrained(directory)
    alone = {"do_resize": False} if hasattr(processor, "crop_size") else {}
    theirs = processor(images=list(PIXELS[0].numpy()), return_tensors="pt", **alone)
    assert seen.keys() - {"interpolate_pos_encoding"} <= theirs.keys()
    for name in theirs:
        torch.testing.assert_close(seen[name], theirs[name], rtol=0, atol=1e-5, check_dtype=False)


def test_the_patches_are_all_there_and_are_the_last_state_behind_the_last_norm(config: RunConfig, directory: Path, family: str) -> None:
    model = built_with(config, directory).model
    with torch.no_grad():
        grid = model.patches(PIXELS)
    assert grid.shape == (1, 8, 4, 4, 32)
    mean, spread = grid.mean(-1).abs().max(), (grid.var(-1, unbiased=False) - 1).abs().max()
    assert mean < 1e-4, "a fresh norm leaves every patch with mean 0"
    assert spread < 0.05, "and variance 1"


def test_each_patch_stands_where_its_view_shows_it(config: RunConfig, directory: Path) -> None:
    """A class token or a register taken for a patch would shift every one of them."""
    model = built_with(config, directory).model
    for row, column in ((0, 0), (1, 2), (3, 3)):
        pixels = torch.full((1, 1, 32, 32, 3), 120, dtype=torch.uint8)
        changed = pixels.clone()
        changed[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
        with torch.no_grad():
            moved = (model.patches(changed) - model.patches(pixels)).abs().sum(-1)[0, 0]
        assert divmod(int(moved.argmax()), 4) == (row, column)


def test_every_parameter_of_the_encoder_gets_a_gradient(config: RunConfig, directory: Path) -> None:
    """A pooling head or a mask token would be decayed and saved without ever learning."""
    model = built_with(config, directory).model
    model.patches(PIXELS).square().sum().backward()
    assert [name for name, parameter in model.vision.named_parameters() if parameter.grad is None] == []


def test_the_outline_knows_its_parameters_and_patches(config: RunConfig, directory: Path) -> None:
    own = config_with(config, directory)
    outline, built = architecture.outline(own), built_with(config, directory)
    assert outline is not None
    assert (outline.architecture, outline.image_tokens) == (built.architecture, built.image_tokens)
    assert outline.parameters["vision"] == sum(parameter.numel() for parameter in built.model.vision.parameters())


def test_stage_vision_takes_a_step_with_it(config: RunConfig, directory: Path) -> None:
    module = StageModule(build(config_with(config, directory), language=False), config, Stage.vision, steps=2)
    module.train()
    before = {name: value.clone() for name, value in module.model.vision.state_dict().items()}
    pixels, none = torch.cat([PIXELS.roll(shift, 2) for shift in range(4)]), torch.zeros((4, 0), dtype=torch.long)
    batch = Batch(pixels, torch.arange(4), none, none, none)
    optimizer = module.configure_optimizers()
    module.measure(batch)[0].backward()
    optimizer.step()
    same = [name for name, value in module.model.vision.state_dict().items() if torch.equal(value, before[name])]
    assert [name for name in same if not name.endswith("bias")] == [], "a key's bias has no say in attention"


CROPPED = {"do_center_crop": True, "do_resize": True, "do_normalize": True}
PUBLISHED = {
    "clip": CROPPED | {"crop_size": 32, "size": 32, "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48, 0.45, 0.4]},
    "dinov2": CROPPED | {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 40}, "image_processor_type": "BitImageProcessor"},
    "vit": {"do_resize": True, "size": 32, "feature_extractor_type": "ViTFeatureExtractor", "image_mean": [0.5, 0.5, 0.5]},
    "siglip2": {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16, "image_mean": [0.5, 0.5, 0.5]},
}


@pytest.mark.parametrize("kind", list(PUBLISHED))
def test_processor_configs_are_read_in_the_forms_the_hub_has_them(config: RunConfig, encoder: Encoder, kind: str, tmp_path: Path) -> None:
    shutil.copytree(encoder(kind), tmp_path / "model")
    processor = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.5, 0.4, 0.3]} | PUBLISHED[kind]
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(processor))
    own = config_with(config, tmp_path / "model")
    built, outline = built_with(config, tmp_path / "model"), architecture.outline(own)
    assert outline is not None
    assert (outline.architecture, outline.architecture.image_size) == (built.architecture, 32)
    assert built.model.mean.flatten().tolist() == pytest.approx(processor["image_mean"])
    assert built.model.std.flatten().tolist() == pytest.approx(processor["image_std"])


def test_something_that_is_no_vision_encoder_is_refused_by_name(config: RunConfig, tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=8).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "SiglipImageProcessor"}')
    with pytest.raises(BadInput, match=r"vision_model: .* is of type bert, and the vision encoders are of siglip") as refused:
        built_with(config, tmp_path)
    assert [field for field, _ in refused.value.fields] == ["vision_model"]
