"""An overlap loss beside the language loss of stage resampler: what it needs, what it adds, and where it is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from panollava import events
from panollava.config import RunConfig, parse
from panollava.errors import BadInput
from panollava.events import Metric, Note
from panollava.model.panollava import Batch
from panollava.model.parts import build
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import read_checkpoint


@pytest.fixture(scope="module")
def added(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"overlap_loss_weight": 0.5})


@pytest.fixture(scope="module")
def added_run(added: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "vlm_resampler"
    train(added, directory)
    return directory


def train(config: RunConfig, directory: Path, **start: Any) -> Path:
    return train_stage(StageJob(config, Stage.resampler, directory, **start), StopRequest(directory))


def metrics(directory: Path, name: str) -> dict[int, dict[str, float]]:
    told = (event for _, event in events.read(directory / events.EVENTS_FILE))
    return {event.step: event.values for event in told if isinstance(event, Metric) and name in event.values}


def six(batch: Batch) -> Batch:
    """The shared batch of three panoramas, and their mirror images."""
    pixels = torch.cat([batch.pixels, batch.pixels.flip(1)])
    return replace(batch, pixels=pixels)


def module_of(config: RunConfig, stage: Stage = Stage.resampler) -> StageModule:
    torch.manual_seed(0)  # the same expander each time
    return StageModule(build(config), config, stage, steps=10)


@pytest.mark.parametrize("loss", ["vicreg", "densecl"])
def test_the_total_is_the_language_loss_and_the_weighted_overlap_loss(added: RunConfig, batch: Batch, loss: str) -> None:
    config = added.model_copy(update={"overlap_loss": loss})
    total, tokens, terms = module_of(config).measure(six(batch))
    alone, same_tokens, none = module_of(config.model_copy(update={"overlap_loss_weight": 0.0})).measure(six(batch))
    assert terms["loss"].item() == pytest.approx(alone.item(), rel=1e-5)
    assert total.item() == pytest.approx(alone.item() + 0.5 * terms["overlap_loss"].item(), rel=1e-5)
    assert (tokens, none) == (same_tokens, {})
    assert any(name.startswith(loss) for name in terms)


def test_it_pulls_at_the_vision_encoder_and_at_the_expander(added: RunConfig, batch: Batch) -> None:
    gradients = []
    for weight in (0.5, 1e-9):
        module = module_of(added.model_copy(update={"overlap_loss_weight": weight}))
        module.measure(six(batch))[0].backward()
        gradients.append(
            next(parameter.grad for name, parameter in module.named_parameters() if "layers.0" in name and name.endswith("q_proj.weight"))
        )
        assert all(parameter.grad is not None for parameter in module.expander.parameters())
    assert not torch.allclose(*gradients, rtol=0.1)  # type: ignore[arg-type]


def test_a_batch_of_too_few_panoramas_goes_without_and_is_counted(added: RunConfig, batch: Batch) -> None:
    module = module_of(added)
    total, _, terms = module.measure(batch)
    assert (len(batch.pixels), terms, module.without_overlap) == (3, {}, 1)
    assert total.item() == pytest.approx(module.model(batch).mean.item(), rel=1e-5)
    total.backward()
    assert all(parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad), "as DDP wants it"


@pytest.mark.parametrize("loss", ["vicreg", "densecl"])
def test_it_is_taken_in_fp32_though_the_encoder_works_in_bf16(added: RunConfig, batch: Batch, loss: str) -> None:
    module = module_of(added.model_copy(update={"overlap_loss": loss}))
    grid = module.model.patches(six(batch).pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.expander(grid).dtype is torch.bfloat16, "what would be without care"
        pairs = module._pairs(six(batch), grid)
        found, _ = module._overlap_loss(*pairs)
    assert {each.dtype for each in (*pairs, found)} == {torch.float32}
    assert found.item() == pytest.approx(module._overlap_loss(*module._pairs(six(batch), grid))[0].item(), abs=1e-6)


def test_steps_without_it_are_told_at_the_next_validation(added: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    """Sixteen rows of four panoramas, four rows a step: by chance no step has one of each."""
    lines = (demo_data / "train.csv").read_text().splitlines()
    urls = list(dict.fromkeys(line.split(",")[0] for line in lines[1:]))[:4]
    few = demo_data / "four.csv"
    few.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[0] in urls)]) + "\n")
    stages = added.stages.model_copy(update={"resampler": added.stages.resampler.model_copy(update={"batch_size": 4, "max_steps": 2})})
    train(added.model_copy(update={"csv_train": (str(few),), "stages": stages}), tmp_path)
    notes = [event.text for _, event in events.read(tmp_path / events.EVENTS_FILE) if isinstance(event, Note)]
    without = 2 - sum("train_overlap_loss" in values for values in metrics(tmp_path, "train_loss").values())
    assert without
    assert any(text.startswith(f"{without} steps had fewer than 4 different panoramas") for text in notes)


def test_its_terms_are_logged_and_val_loss_stays_the_language_loss(added_run: Path, config: RunConfig) -> None:
    values = metrics(added_run, "train_loss")[1]
    assert values["train_total_loss"] == pytest.approx(values["train_loss"] + 0.5 * values["train_overlap_loss"], rel=1e-5)
    assert {"train_vicreg_invariance", "train_vicreg_variance", "train_vicreg_covariance"} <= set(values)
    (validation,) = metrics(added_run, "val_loss").values()
    assert not {"val_overlap_loss", "val_total_loss"} & set(validation)
    assert validation["val_loss"] < 10, "no VICReg of an untrained expander in it"


def test_the_expander_is_in_its_checkpoints_and_not_in_the_final_model(added_run: Path) -> None:
    assert any(name.startswith("expander.") for name in read_checkpoint(added_run / "checkpoints" / "last.ckpt")["state_dict"])
    assert not any("expander" in name for name in load_file(added_run / "model_final.safetensors"))


def test_it_resumes_to_the_same_losses(added: RunConfig, added_run: Path, tmp_path: Path) -> None:
    class AfterTwoSteps(StopRequest):
        def __bool__(self) -> bool:
            return (tmp_path / events.EVENTS_FILE).exists() and len(metrics(tmp_path, "train_loss")) >= 2

    with pytest.raises(Stopped):
        train_stage(StageJob(added, Stage.resampler, tmp_path), AfterTwoSteps(tmp_path))
    last = tmp_path / "checkpoints" / "last.ckpt"
    other = added.model_copy(update={"overlap_loss_weight": 0.25})
    with pytest.raises(BadInput, match=r"loss was autoregressive \+ 0\.5 vicreg and is autoregressive \+ 0\.25 vicreg"):
        train(other, tmp_path, resume=last)
    train(added, tmp_path, resume=last)
    ours, theirs = metrics(tmp_path, "train_total_loss"), metrics(added_run, "train_total_loss")
    assert {step: values["train_total_loss"] for step, values in ours.items()} == {
        step: values["train_total_loss"] for step, values in theirs.items()
    }


def test_the_next_stage_starts_from_its_checkpoint(added: RunConfig, added_run: Path, tmp_path: Path) -> None:
    one = added.stages.finetune.model_copy(update={"max_steps": 1})
    config = added.model_copy(update={"stages": added.stages.model_copy(update={"finetune": one})})
    best = train_stage(StageJob(config, Stage.finetune, tmp_path, added_run / "checkpoints" / "best.ckpt"), StopRequest(tmp_path))
    assert not any("expander" in name for name in read_checkpoint(best)["state_dict"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stage": "finetune", "overlap_loss_weight": 0.1}, r"overlap_loss_weight is 0\.1: .* frozen, so it would change nothing"),
        ({"stage": "vision", "overlap_loss_weight": 0.1}, r"overlap_loss_weight is 0\.1: .* Stage vision is the overlap loss alone"),
        ({"overlap_loss_weight": 0.1, "stages": {"resampler": {"batch_size": 3}}}, r"stages\.resampler\.batch_size is 3: .* at least 4"),
        ({"stage": "resampler", "overlap_loss_weight": 0.1, "crop_strategy": "cubemap"}, "crop_strategy is cubemap: stage resampler compares"),
        ({"stage": "resampler", "overlap_loss_weight": 0.1, "overlap": 0}, r"overlap is 0\.0: stage resampler compares"),
        ({"vicreg_inv": 0, "vicreg_var": 0, "vicreg_cov": 0}, "vicreg_inv is 0.0: with all three weights of VICReg 0"),
        ({"overlap_loss_weight": -1}, "overlap_loss_weight: Input should be greater than or equal to 0"),
        ({"overlap_loss": "barlow"}, "overlap_loss: Input should be 'vicreg' or 'densecl'"),
        ({"overlap_loss": "densecl", "vicreg_cov": 2}, "vicreg_cov is 2.0: it counts only where overlap_loss is vicreg"),
        ({"densecl_temperature": 0.1}, "densecl_temperature is 0.1: it counts only where overlap_loss is densecl"),
        ({"overlap_loss": "densecl", "densecl_temperature": 0}, "densecl_temperature: Input should be greater"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(values)


@pytest.mark.parametrize("values", [{"stage": "resampler", "crop_strategy": "cubemap"}, {"stage": "finetune", "overlap_loss": "densecl"}])
def test_without_a_weight_nothing_is_asked_of_the_views(values: dict[str, Any]) -> None:
    parse(values)


def test_a_stage_says_what_it_minimises() -> None:
    plain, added = RunConfig(), RunConfig(overlap_loss="densecl", overlap_loss_weight=0.1)
    assert [plain.loss(stage) for stage in Stage] == ["vicreg", "autoregressive", "autoregressive"]
    assert [added.loss(stage) for stage in Stage] == ["densecl", "autoregressive + 0.1 densecl", "autoregressive"]
