"""The resamplers: as many tokens and parameters as the table says, every view in each, and a new one is a file and a line."""

from pathlib import Path

import pytest
import torch

from app.launch import fields
from panollava import architecture, resamplers
from panollava.config import RunConfig, merge, parse
from panollava.errors import BadInput
from panollava.model.panollava import Batch
from panollava.model.parts import build
from panollava.presets import PRESETS
from panollava.resamplers import RESAMPLERS, Resampler, Sizes
from panollava.stages import RECIPES, Stage
from panollava.training.module import StageModule

SIZES = Sizes(views=5, grid=4, vision_width=24)
VALUES: dict[str, dict[str, object]] = {
    "mlp": {"pool": 2, "resampler_width": 16},
    "linear": {"pool": 1, "resampler_width": 16},
    "avgpool": {"pool": 4},
    "perceiver": {"resampler_width": 16, "resampler_queries": 7, "resampler_layers": 3, "resampler_heads": 4},
    "qformer": {"resampler_width": 16, "resampler_queries": 7, "resampler_layers": 3, "resampler_heads": 4},
}
TOKENS = {"mlp": 5 * 4, "linear": 5 * 16, "avgpool": 5, "perceiver": 7, "qformer": 7}


def config_of(name: str) -> RunConfig:
    return parse({"resampler": name, **VALUES[name]})


@pytest.mark.parametrize("name", list(RESAMPLERS))
def test_tokens_and_parameters_are_known_before_the_module_is_made(name: str) -> None:
    config = config_of(name)
    module = resamplers.make(config, SIZES)
    tokens = module(torch.randn(2, 5, 4, 4, 24))
    assert tokens.shape == (2, resamplers.image_tokens(config, SIZES), module.width) == (2, TOKENS[name], 24 if name == "avgpool" else 16)
    assert sum(parameter.numel() for parameter in module.parameters()) == resamplers.parameters(config, SIZES)


@pytest.mark.parametrize("name", list(RESAMPLERS))
def test_every_patch_of_every_view_has_a_say_and_every_parameter_learns(name: str) -> None:
    module = resamplers.make(config_of(name), SIZES)
    grid = torch.randn(2, 5, 4, 4, 24, requires_grad=True)
    module(grid).square().sum().backward()
    assert grid.grad is not None
    assert (grid.grad.abs().sum(-1) > 0).all()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize("name", list(RESAMPLERS))
def test_a_panorama_does_not_depend_on_the_others_of_its_batch(name: str) -> None:
    module, grid = resamplers.make(config_of(name), SIZES), torch.randn(3, 5, 4, 4, 24)
    torch.testing.assert_close(module(grid)[1:2], module(grid[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(RESAMPLERS))
def test_turning_the_panorama_changes_what_is_said_of_it(name: str) -> None:
    """Attention sees a bag of patches unless it is told where each one is: front would be behind."""
    module, grid = resamplers.make(config_of(name), SIZES).double(), torch.randn(1, 5, 4, 4, 24).double()
    assert (module(grid) - module(grid.roll(1, 1))).abs().max() > 1e-9


@pytest.mark.parametrize("name", list(RESAMPLERS))
def test_mixed_precision_is_near_full_precision(name: str) -> None:
    module, grid = resamplers.make(config_of(name), SIZES), torch.randn(2, 5, 4, 4, 24)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(grid)
    torch.testing.assert_close(mixed.float(), module(grid), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", list(RESAMPLERS))
@pytest.mark.parametrize("stage", [Stage.resampler, Stage.finetune])
def test_each_trains_a_step_in_the_stages_that_have_it(config: RunConfig, batch: Batch, name: str, stage: Stage) -> None:
    values = {"resampler": name, "resampler_width": None, "resampler_queries": 32} if "queries" in str(VALUES[name]) else {"resampler": name}
    built = build(parse(merge(config.model_dump(), values | ({"resampler_width": None} if name == "avgpool" else {}))))
    assert built.image_tokens == 32, "as the batch's prompts were made for"
    module = StageModule(built, config, stage, steps=2)
    module.train()
    before = {key: value.clone() for key, value in built.model.state_dict().items()}
    optimizer = module.configure_optimizers()
    module.measure(batch)[0].backward()
    optimizer.step()
    changed = {key.partition(".")[0] for key, value in built.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == RECIPES[stage].trains - ({"resampler"} if name == "avgpool" else set())


class Corners(torch.nn.Module):
    """What somebody else's resampler may be: the four corners of every view."""

    def __init__(self, config: RunConfig, sizes: Sizes) -> None:
        super().__init__()
        self.width = sizes.vision_width

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        corners: torch.Tensor = grid[:, :, ::3, ::3].flatten(1, 3)
        return corners


def test_a_new_resampler_is_a_file_and_a_line(config: RunConfig, monkeypatch: pytest.MonkeyPatch, batch: Batch) -> None:
    monkeypatch.setitem(
        RESAMPLERS, "corners", Resampler(f"{__name__}:Corners", (), lambda config, sizes: 4 * sizes.views, lambda config, sizes: 0)
    )  # fmt: skip
    monkeypatch.setattr(resamplers, "import_module", lambda name: __import__("types").SimpleNamespace(Corners=Corners))
    own = parse(merge(config.model_dump(), {"resampler": "corners", "resampler_width": None}))
    assert architecture.image_tokens(own) == build(own).image_tokens == 32
    assert torch.isfinite(build(own).model(batch).total)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"resampler": "attention"}, "resampler"),
        ({"resampler_queries": 5}, "resampler_queries"),
        ({"resampler": "perceiver", "pool": 4}, "pool"),
        ({"resampler": "avgpool", "resampler_width": 8}, "resampler_width"),
    ],
)
def test_an_unknown_resampler_and_a_setting_that_counts_for_another_are_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(values)
    assert [name for name, _ in refused.value.fields] == [field]


@pytest.mark.parametrize("values", [{"pool": 4, "resampler": "mlp"}, {"resampler": "qformer", "resampler_heads": 5}])
def test_sizes_that_do_not_divide_are_refused_by_name(values: dict[str, object]) -> None:
    config = parse(values)
    with pytest.raises(BadInput, match=r"pool is 4.*6 x 6|resampler_heads is 5.*24"):
        resamplers.check(config, Sizes(views=5, grid=6, vision_width=24))


def test_the_form_offers_every_resampler() -> None:
    assert fields.fields()["resampler"].choices == tuple(RESAMPLERS)


def test_the_outline_of_a_run_is_what_is_built(config: RunConfig) -> None:
    for name in RESAMPLERS:
        own = parse(merge(config.model_dump(), {"resampler": name, "resampler_width": None}))
        outline, built = architecture.outline(own), build(own)
        assert outline is not None
        assert (outline.architecture, outline.image_tokens) == (built.architecture, built.image_tokens)
        parts = {part: sum(each.numel() for each in module.parameters()) for part, module in built.model.named_children()}
        assert outline.parameters == parts | {"lora": 0}


def test_models_that_are_not_on_this_machine_have_no_outline(tmp_path: Path) -> None:
    elsewhere = parse(merge(PRESETS["demo"], {"vision_model": "nobody/nothing", "resampler": "perceiver"}))
    assert architecture.outline(elsewhere) is None
    assert architecture.image_tokens(elsewhere) == 64
    assert architecture.image_tokens(elsewhere.model_copy(update={"resampler": "mlp"})) is None
