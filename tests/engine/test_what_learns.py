"""Exactly the parts in the stage table learn; everything else is frozen, bit by bit and in mode."""

from dataclasses import replace

import pytest
import torch

from panollava.config import RunConfig
from panollava.model.panollava import Batch, freeze
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.stages import RECIPES, Stage
from panollava.training.data import Collate, Samples, Split
from panollava.training.module import StageModule
from panollava.training.optimizer import share_of_peak


def module_of(config: RunConfig, stage: Stage) -> StageModule:
    return StageModule(build(config, language=RECIPES[stage].needs_text), config, stage, steps=10)


def one_step(module: StageModule, batch: Batch) -> None:
    module.train()
    optimizer = module.configure_optimizers()
    loss, _, _ = module.measure(batch)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("stage", list(Stage))
def test_after_one_step_exactly_the_stages_parts_have_changed(config: RunConfig, batch: Batch, stage: Stage) -> None:
    module = module_of(config, stage)
    if stage is Stage.vision:
        batch = replace(batch, pixels=torch.cat([batch.pixels, batch.pixels.flip(1)]))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    one_step(module, batch)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    parts = {name.removeprefix("model.").partition(".")[0] for name in changed}
    assert parts == RECIPES[stage].trains
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert changed <= learning


def test_frozen_parts_stay_in_evaluation_mode_when_lightning_asks_for_training(config: RunConfig) -> None:
    module = module_of(config, Stage.finetune)
    module.train()
    assert module.model.language is not None
    assert not any(part.training for part in module.model.language.modules())
    assert not any(part.training for part in module.model.vision.modules())
    assert all(part.training for part in module.model.resampler.modules())


def test_stage_vision_does_without_the_language_model(config: RunConfig) -> None:
    assert module_of(config, Stage.vision).model.language is None


def test_a_part_that_is_not_there_cannot_stay_frozen_in_silence(config: RunConfig) -> None:
    with pytest.raises(ValueError, match="Nothing in the model is called"):
        freeze(module_of(config, Stage.finetune), frozenset({"resampler", "projector"}))


def test_the_weights_of_vicregs_terms_change_the_loss(config: RunConfig, batch: Batch) -> None:
    batch = replace(batch, pixels=torch.cat([batch.pixels, batch.pixels.flip(1)]))
    losses = {}
    for weight in (0.0, 25.0):
        torch.manual_seed(0)  # the same expander twice
        losses[weight], _, terms = module_of(config.model_copy(update={"vicreg_var": weight}), Stage.vision).measure(batch)
    assert (losses[25.0] - losses[0.0]).item() == pytest.approx(25 * terms["vicreg_variance"].item(), rel=1e-4)


def test_the_vision_encoder_has_its_own_learning_rate_and_norms_and_biases_do_not_decay(config: RunConfig) -> None:
    module = module_of(config, Stage.resampler)
    groups = module.configure_optimizers().param_groups
    assert {group["peak"] for group in groups} == {config.stages.resampler.lr, config.stages.resampler.vision_lr}
    assert all(parameter.ndim > 1 for group in groups if group["weight_decay"] for parameter in group["params"])
    assert sum(len(group["params"]) for group in groups) == sum(parameter.requires_grad for parameter in module.parameters())


def test_the_learning_rate_rises_then_falls_to_its_floor(config: RunConfig) -> None:
    shares = [share_of_peak(step, 10, config.stages.resampler) for step in range(11)]
    assert shares[0] < shares[1] == max(shares)
    assert shares[-1] == pytest.approx(config.stages.resampler.min_lr_ratio)


def test_validation_loss_is_the_mean_over_all_supervised_tokens(config: RunConfig, split: Split, prompter: Prompter) -> None:
    """Not the mean over batches: these two hold other numbers of samples, whose answers have other lengths."""
    module = module_of(config, Stage.finetune).eval()
    pairs, collate = Samples(split, by_row=True).pairs, Collate(split, prompter)
    module.on_validation_epoch_start()
    with torch.no_grad():
        for number, rows in enumerate(([0, 1, 2, 3, 4], [5])):
            module.validation_step(collate([pairs[row] for row in rows]), number)
        alone = [module.model(collate([pairs[row]])) for row in range(6)]
    module.on_validation_epoch_end()
    tokens = sum(each.tokens for each in alone)
    assert module.validation["val_loss"] == pytest.approx(sum(float(each.mean) * each.tokens for each in alone) / tokens, rel=1e-5)
