"""From a panorama to eight views of 224 pixels, on one core, beside py360convert with OpenCV."""

import io
import math

import cv2
import numpy as np
import py360convert
from PIL import Image as pil
from py360convert.utils import EquirecSampler

from panollava.config import RunConfig
from panollava.layouts import View, layout
from panollava.views import Cutter, Image, Maps, project
from tools.bench.lines import Pair, line

SIZE = 224
LAYOUT = layout(RunConfig())
FOV = math.degrees(2 * math.atan(math.tan(math.radians(45)) * (SIZE - 1) / SIZE))
"""What py360convert must be asked for to put its pixel centres where those of 90 degrees are."""
QUALITY = 75
"""Of the JPEG, as Pillow has it. With ROUGHNESS a panorama of 4096 x 2048 comes to 0.6 MB; what decoding small saves shrinks with more."""
ROUGHNESS = 0.75
"""How much less each octave of detail counts than the one before."""


@line("8 views of 224 from 2048x1024, the same pixels", against="py360convert with OpenCV", at_least=7)
def projection_of_2048() -> Pair:
    return _projection(2048)


@line("8 views of 224 from 4096x2048, the same pixels", against="py360convert with OpenCV", at_least=10)
def projection_of_4096() -> Pair:
    return _projection(4096)


@line("JPEG of 4096x2048 and 0.6 MB to 8 views of 224, decoded small", against="Pillow, whole, and py360convert with OpenCV", at_least=7)
def decoding_and_projection() -> Pair:
    """Other pixels: shrunk while decoding to what the views can show."""
    file, cutter = _jpeg(scene(4096)), Cutter(LAYOUT, SIZE, RunConfig(fast_decode=True).supersample)
    return Pair(lambda: cutter(_decoded(file, cutter.width)), lambda: _theirs(_decoded(file, None)))


def _projection(width: int) -> Pair:
    """Raises ValueError if the two are not bit for bit the same."""
    panorama, maps = scene(width), their_maps(width)
    pair = Pair(lambda: project(panorama, maps).reshape(-1, SIZE, SIZE, 3), lambda: _theirs(panorama))
    if not np.array_equal(pair.ours(), pair.peer()):
        raise ValueError("The pixels are not py360convert's.")
    return pair


def their_maps(width: int) -> Maps:
    """py360convert's own, of all views one above the other."""
    fov = math.radians(FOV)
    samplers = [
        EquirecSampler.from_perspective(fov, fov, -math.radians(_yaw(view)), 0.0, 0.0, width // 2, width, SIZE, SIZE, 1) for view in LAYOUT.views
    ]
    return Maps.fixed(np.concatenate([each._coor_x for each in samplers]), np.concatenate([each._coor_y for each in samplers]))


def _theirs(panorama: Image) -> Image:
    return np.stack([py360convert.e2p(panorama, FOV, _yaw(view), 0, (SIZE, SIZE)) for view in LAYOUT.views])


def _yaw(view: View) -> float:
    return (view.yaw + 180) % 360 - 180


def scene(width: int) -> Image:
    """Noise with as much detail at every scale as a picture has."""
    rng, height = np.random.default_rng(0), width // 2
    scene = np.zeros((height, width, 3), np.float32)
    for octave in range(1, height.bit_length()):
        coarse = rng.standard_normal((2**octave, 2 ** (octave + 1), 3)).astype(np.float32)
        scene += ROUGHNESS**octave * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    scene -= scene.min()
    return np.asarray(scene / scene.max() * 255, np.uint8)


def _jpeg(panorama: Image) -> bytes:
    file = io.BytesIO()
    pil.fromarray(panorama).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _decoded(data: bytes, at_least: int | None) -> Image:
    """As `panollava.data.images` does it."""
    with pil.open(io.BytesIO(data)) as file:
        if at_least is not None:
            file.draft("RGB", (at_least, at_least // 2))
        return np.asarray(file.convert("RGB"), np.uint8)
