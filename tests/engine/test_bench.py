"""The benchmark's lines: that what they compare is the same, and that a missed bar is told."""

import math
import time

import numpy as np
import py360convert
import pytest
from py360convert.utils import EquirecSampler

from panollava.views import Maps, project
from tools.bench import views
from tools.bench.lines import Line, Pair, measure


def test_a_line_that_is_too_slow_is_missed() -> None:
    turns = []
    pair = Pair(lambda: turns.append("ours"), lambda: (turns.append("peer"), time.sleep(0.001)))
    found = measure(Line("nothing", "a nap", 1e9, lambda: pair), rounds=2)
    assert not found.holds and "**missed**" in str(found)
    assert found.ratio > 1 and set(turns) == {"ours", "peer"}
    assert measure(Line("a nap", "nothing", 0, lambda: Pair(pair.peer, pair.ours)), rounds=1).holds


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
