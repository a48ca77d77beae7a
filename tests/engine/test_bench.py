"""The benchmark's lines: that what they compare is the same, and that a missed bar is told."""

import math
import time

import numpy as np
import py360convert
import pytest
from py360convert.utils import EquirecSampler

from panollava.views import Maps, project
from tools.bench import training, views  # noqa: F401  # the first registers its lines
from tools.bench.lines import (
    LINES,
    Bar,
    Line,
    Pair,
    Round,
    in_turns,
    interval,
    measure,
    microseconds_more,
    percent_longer,
    times_as_fast,
)  # fmt: skip


def line_of(bar: Bar, *rounds: Round) -> Line:
    return Line("this", "that", bar, lambda count: rounds[:count])


def test_two_ways_take_turns_and_the_faster_one_is_found() -> None:
    turns = []
    pair = Pair(lambda: turns.append("ours"), lambda: (turns.append("peer"), time.sleep(0.001)))
    found = measure(Line("nothing", "a nap", times_as_fast(1), lambda rounds: in_turns(lambda: pair, rounds)), rounds=2)
    assert found.holds and found.found > 1 and set(turns) == {"ours", "peer"}


@pytest.mark.parametrize(
    ("bar", "good", "bad"),
    [
        (times_as_fast(2), Round(1, 2.1), Round(1, 1.9)),
        (percent_longer(3), Round(102, 100), Round(104, 100)),
        (microseconds_more(50), Round(1.04, 1), Round(1.06, 1)),
    ],
)
def test_a_bar_that_is_missed_is_told(bar: Bar, good: Round, bad: Round) -> None:
    assert measure(line_of(bar, *[good] * 9), 9).holds
    missed = measure(line_of(bar, *[bad] * 9), 9)
    assert not missed.holds and "**missed**" in str(missed)


def test_noise_alone_does_not_miss_a_bar_and_stands_in_the_table() -> None:
    spread = measure(line_of(percent_longer(3), *[Round(ours, 100) for ours in (90, 101, 104, 104.5, 105, 130)]), 6)
    assert spread.holds and "4.2 (-10.0 to 30.0)" in str(spread)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [low <= 1 <= high for low, high in (interval(rng.lognormal(0, 1, 15).tolist()) for _ in range(2000))]
    assert 0.985 < sum(held) / len(held) < 1
    assert interval([3.0]) == (3.0, 3.0) and interval([2.0, 1.0]) == (1.0, 2.0)


def test_the_training_lines_measure_real_steps() -> None:
    """A bare loop that computed another loss than ours would raise."""
    lines = [each for each in LINES if "step of" in each.what.lower()]
    assert len(lines) >= 2
    for each in lines:
        rounds = each.rounds(1)
        assert len(rounds) >= 4 and all(one.ours > 0 and one.peer > 0 for one in rounds)


def test_their_own_maps_give_the_very_pixels_of_py360convert() -> None:
    """OpenCV's fixed-point sampling on both sides, at the seam too: view 5 looks at it."""
    panorama = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    ours = project(panorama, views.their_maps(256)).reshape(8, 224, 224, 3)
    for view, mine in zip(views.LAYOUT.views, ours, strict=True):
        theirs = py360convert.e2p(panorama, views.FOV, (view.yaw + 180) % 360 - 180, 0, (224, 224))
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("pitch", [65, 90, -80])
def test_their_own_maps_give_the_very_pixels_over_the_poles_as_well(pitch: float) -> None:
    panorama = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    fov, up = math.radians(100), math.radians(pitch)
    sampler = EquirecSampler.from_perspective(fov, fov, -math.radians(150), up, 0.0, 128, 256, 64, 64, 1)
    theirs = py360convert.e2p(panorama, 100, 150, pitch, (64, 64))
    np.testing.assert_array_equal(project(panorama, Maps.fixed(sampler._coor_x, sampler._coor_y)), theirs)


def test_the_full_size_comparison_runs_with_tiny_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tools.bench import full_size  # Hugging Face's Trainer takes seconds to import

    monkeypatch.setattr("sys.argv", ["full_size", "--tiny", "--steps", "6", "--batch-size", "4"])
    assert full_size.main() == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith(("| resampler", "| finetune"))]
    assert len(rows) == 2 and all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)
