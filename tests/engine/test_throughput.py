"""What a step's metrics say of its speed: samples, tokens without padding, and the share of a known device's peak."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from panollava import events, flops
from panollava.config import RunConfig
from panollava.events import Metric
from panollava.model.panollava import Batch
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.presets import DEMO_MODELS
from panollava.stages import RECIPES, Stage
from panollava.training import throughput
from panollava.training.data import Collate, Samples, Split
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.steps import Step
from panollava.training.stop import StopRequest
from panollava.training.throughput import Throughput, Work

LANGUAGE = flops.Language.of(json.loads((DEMO_MODELS / "language" / "config.json").read_text()))
VISION = flops.Vision.of(json.loads((DEMO_MODELS / "vision" / "config.json").read_text()), image_size=32, views=8)
VIEWS = (3, 8, 32, 32, 3)


def test_padding_is_no_token_and_a_shared_panorama_is_seen_once(split: Split, prompter: Prompter, batch: Batch) -> None:
    rows = split.index.rows
    told = [prompter.exchange(rows[row].query, rows[row].annotation) for row in (0, 1, 4, 5, 8, 9)]
    said = sum(label >= 0 for each in told for label in each.labels)
    assert Work.of(Step((batch,), (1,))) == Work(samples=6, views=(3, 8, 32, 32, 3), tokens=sum(len(each.ids) for each in told), supervised=said)


def test_a_batch_keeps_its_counts_on_the_way_to_a_device(batch: Batch) -> None:
    moved = batch.to(torch.device("meta"))
    assert Work.of(Step((moved,), (1,))) == Work.of(Step((batch,), (1,)))
    assert all(getattr(moved, name).is_meta for name in ("pixels", "image_index", "labels"))


def test_every_step_says_how_fast_it_was_and_a_processor_has_no_mfu(config: RunConfig, tmp_path: Path) -> None:
    train_stage(StageJob(config, Stage.finetune, tmp_path), StopRequest(tmp_path))
    steps = [each.values for _, each in events.read(tmp_path / events.EVENTS_FILE) if isinstance(each, Metric) and "train_loss" in each.values]
    assert len(steps) == 3
    for values in steps:
        assert 0 < values["samples_per_second"] < values["supervised_tokens_per_second"] < values["tokens_per_second"]
        assert "mfu" not in values


@pytest.mark.parametrize("stage", list(Stage))
def test_the_arithmetic_of_a_step(stage: Stage, config: RunConfig) -> None:
    """Six samples on three panoramas: each panorama once, each sequence by its length."""
    needs_text = RECIPES[stage].needs_text
    speed = Throughput(StageModule(build(config, language=needs_text), config, stage, steps=1))
    work = Work(samples=6, views=VIEWS, tokens=6 * 50, supervised=6 * 4) if needs_text else Work(3, VIEWS, 0, 0)
    alone = flops.per_sample(stage, VISION, LANGUAGE, 50, 4)
    expected = 6 * alone - 3 * flops.per_panorama(stage, VISION) if needs_text else 3 * alone
    features = replace(work, views=(0,))  # from the cache
    assert speed.flops(work) - speed.flops(features) == pytest.approx(3 * flops.per_panorama(stage, VISION))
    assert speed.flops(work) == pytest.approx(expected)


def test_rates_are_of_a_second_and_mfu_is_of_the_peak(config: RunConfig, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A micro-batch of weight 0 only fills up a rank's step."""
    monkeypatch.setattr(throughput, "_peak", lambda module: 1e12)
    speed, step = Throughput(StageModule(build(config), config, Stage.finetune, steps=1)), Step((batch, batch), (1, 0))
    work = Work.of(step)
    assert work == Work.of(Step((batch,), (1,)))
    assert speed.rates(step, 2.0) == pytest.approx(
        {
            "samples_per_second": work.samples / 2, "tokens_per_second": work.tokens / 2, "supervised_tokens_per_second": work.supervised / 2,
            "mfu": speed.flops(work) / 2e12,
        }
    )  # fmt: skip


def test_a_row_that_comes_again_gives_the_same_batch(split: Split, prompter: Prompter) -> None:
    collate, pairs = Collate(split, prompter), Samples(split, by_row=True).pairs[:6]
    first, second, fresh = collate(pairs), collate(pairs), Collate(split, prompter)(pairs)
    assert len(collate.encoded) == 6
    for name in ("input_ids", "attention_mask", "labels"):
        assert getattr(first, name).equal(getattr(second, name)) and getattr(first, name).equal(getattr(fresh, name))
