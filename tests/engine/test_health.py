"""The figures of a validation that say whether the encoder still tells panoramas apart, and what is told when it does not."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from panollava import events, layouts
from panollava.config import RunConfig
from panollava.events import EventWriter, Metric, Note
from panollava.losses.health import agreement, effective_rank, retrieval, spread
from panollava.losses.overlap import OverlapPairs
from panollava.stages import Stage
from panollava.training import examine
from panollava.training.examine import Examination
from panollava.training.fit import train_stage
from panollava.training.health import HealthWatch
from panollava.training.job import StageJob
from panollava.training.module import Diverged
from panollava.training.stop import StopRequest

PAIRS = OverlapPairs(layouts.layout(RunConfig()), 4)
FIGURES = {"invariance", "variance", "covariance", "feature_std", "effective_rank", "retrieval", "adjacent_cosine"}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def figures(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    return agreement(a, b, PAIRS.view) | spread(a)


def warnings(directory: Path) -> list[str]:
    told = (event for _, event in events.read(directory / events.EVENTS_FILE))
    return [event.text for event in told if isinstance(event, Note) and event.level == "warning"]


def of(config: RunConfig, stage: Stage, **settings: Any) -> RunConfig:
    changed = config.stages[stage].model_copy(update=settings)
    return config.model_copy(update={"stages": config.stages.model_copy(update={str(stage): changed})})


def train(config: RunConfig, stage: Stage, directory: Path, **start: Any) -> Path:
    return train_stage(StageJob(config, stage, directory, **start), StopRequest(directory))


def test_retrieval_finds_partners_and_effective_rank_counts_dimensions() -> None:
    features = noise(4, len(PAIRS.view), 16)
    assert retrieval(features, features, PAIRS.view) == 1.0
    assert retrieval(features, features.roll(1, 0), PAIRS.view) == 0.0
    flat = noise(64, 64, 4)
    assert effective_rank(flat) == pytest.approx(4, abs=0.05)
    assert effective_rank(flat[..., :1] @ torch.ones(1, 4)) == pytest.approx(1, abs=0.05)
    assert effective_rank(1e30 * flat) == pytest.approx(effective_rank(flat), rel=1e-4)


def test_pairing_columns_linearly_finds_fewer_partners() -> None:
    """Smooth features of the direction: right pairs have equal features, wrong ones those of a place some degrees away."""
    pairs = OverlapPairs(layouts.layout(RunConfig()), 14)
    waves = 12 * noise(3, 64)
    images = noise(8, 1, 64) * 6.28
    grid = torch.stack([torch.sin(view @ waves + images) for view in cells(14)], 1).unflatten(2, (14, 14))  # [U, V, G, G, D]
    ours = agreement(*pairs(grid), pairs.view)
    view = torch.arange(8).repeat_interleave(7 * 14)
    linear = agreement(grid[:, :, :, 7:].flatten(1, 3), grid.roll(-1, 1)[:, :, :, :7].flatten(1, 3), view)
    assert ours["retrieval"] >= linear["retrieval"]
    assert ours["adjacent_cosine"] > linear["adjacent_cosine"] + 0.05
    assert ours["invariance"] < linear["invariance"] / 2


def cells(grid: int) -> list[torch.Tensor]:
    """Directions of the cells of each view of the default ring. [G*G, 3] each"""
    from panollava.losses.overlap import _directions

    return [torch.from_numpy(_directions(view, grid)) for view in layouts.layout(RunConfig()).views]


def test_features_that_know_only_their_position_have_no_spread_and_no_rank() -> None:
    position = noise(1, len(PAIRS.view), 16).expand(8, -1, -1)
    found = figures(position, position)
    assert found["feature_std"] == pytest.approx(0, abs=1e-6)
    assert found["effective_rank"] < 1.01
    assert found["variance"] == pytest.approx(0.99, abs=1e-3)
    assert found["adjacent_cosine"] == pytest.approx(1, abs=1e-4)
    assert found["retrieval"] < 0.2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_features_that_are_not_finite_give_nan_and_no_error(bad: float, everywhere: bool) -> None:
    features = noise(8, len(PAIRS.view), 16)
    features[... if everywhere else (3, 5, 7)] = bad
    found = figures(features, features)
    assert set(found) == FIGURES
    assert not any(math.isfinite(found[name]) for name in FIGURES - {"variance"})


def test_a_panorama_counts_once_however_many_batches_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(256, (6, 8, 4, 4, 3), dtype=torch.uint8)
    grid = noise(6, 8, 4, 4, 5)
    once, often = Examination(PAIRS), Examination(PAIRS)
    once.add(pixels, grid)
    for places in ([0, 1], [1, 2, 3], [3, 0], [4, 5, 1]):
        often.add(pixels[places], grid[places])
    assert often.figures() == once.figures()
    assert set(once.figures()) == FIGURES
    monkeypatch.setattr(examine, "PANORAMAS", 4)
    few, four = Examination(PAIRS), Examination(PAIRS)
    for places in ([0, 1, 2], [3, 4, 5], [5]):
        few.add(pixels[places], grid[places])
    four.add(pixels[:4], grid[:4])
    assert few.figures() == four.figures()


def test_without_overlap_there_are_figures_of_the_spread_alone_and_with_few_panoramas_none() -> None:
    pixels, grid = torch.randint(256, (6, 6, 4, 4, 3), dtype=torch.uint8), noise(6, 6, 4, 4, 5)
    cube, three = Examination(None), Examination(None)
    cube.add(pixels, grid)
    three.add(pixels[:3], grid[:3])
    assert set(cube.figures()) == {"feature_std", "effective_rank"}
    assert three.figures() == {}


def test_a_collapse_is_told_once_for_each_fall(tmp_path: Path) -> None:
    watch = HealthWatch(EventWriter(tmp_path / events.EVENTS_FILE))
    for rank in (math.nan, 10.0, 8.0, 7.1):
        watch._watch_rank(rank)
    assert warnings(tmp_path) == []
    for rank in (6.9, 5.0, 7.2, 6.0, math.nan, 4.0):
        watch._watch_rank(rank)
    assert len(warnings(tmp_path)) == 1, "one fall, though it comes back a little"
    assert "effective rank is 6.9, and was 10 before the stage's first step. Go on from an earlier checkpoint" in warnings(tmp_path)[0]
    for rank in (9.0, 6.0):
        watch._watch_rank(rank)
    assert len(warnings(tmp_path)) == 2


def test_a_collapse_after_a_resume_is_measured_from_before_the_stages_first_step(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = iter([10.0, 9.0, 6.0])
    monkeypatch.setattr(examine, "spread", lambda features: {"feature_std": 1.0, "effective_rank": next(ranks)})
    config = of(config, Stage.vision, batch_size=20, max_steps=None, epochs=1)
    train(config, Stage.vision, tmp_path / "attempt-1")
    assert warnings(tmp_path / "attempt-1") == []
    longer = of(config, Stage.vision, epochs=2)
    train(longer, Stage.vision, tmp_path / "attempt-2", resume=tmp_path / "attempt-1" / "checkpoints" / "last.ckpt")
    assert "effective rank is 6, and was 10" in warnings(tmp_path / "attempt-2")[0]


def test_a_collapse_within_the_first_epoch_is_told_and_a_healthy_epoch_tells_of_none(config: RunConfig, tmp_path: Path) -> None:
    for lr, collapses in ((config.stages.vision.lr, False), (0.3, True)):
        train(of(config, Stage.vision, lr=lr, batch_size=8, max_steps=None, epochs=1), Stage.vision, tmp_path / str(lr))
        assert any("features collapse" in text for text in warnings(tmp_path / str(lr))) == collapses


def test_every_validation_of_a_stage_in_which_the_encoder_learns_has_the_figures(config: RunConfig, tmp_path: Path) -> None:
    for stage, wanted in ((Stage.vision, FIGURES), (Stage.resampler, FIGURES), (Stage.finetune, set())):
        directory = tmp_path / stage
        train(of(config, stage, max_steps=1), stage, directory)
        told = [event.values for _, event in events.read(directory / events.EVENTS_FILE) if isinstance(event, Metric) and "val_loss" in event.values]
        assert all({name.removeprefix("val_") for name in values} & FIGURES == wanted for values in told)
        assert all(math.isfinite(value) for values in told for value in values.values())


def test_an_encoder_that_diverges_ends_the_run_with_the_reason(config: RunConfig, tmp_path: Path) -> None:
    """Its validation comes before the tenth step in a row, and has features that no singular value can be told of."""
    steep = of(config, Stage.vision, lr=1e30, batch_size=8, max_steps=None, epochs=4)
    with pytest.raises(Diverged, match="The loss was not finite in 10 steps in a row"):
        train(steep, Stage.vision, tmp_path)
    told = [event.values for _, event in events.read(tmp_path / events.EVENTS_FILE) if isinstance(event, Metric) and "val_loss" in event.values]
    assert told
    assert math.isnan(told[0]["val_effective_rank"])
