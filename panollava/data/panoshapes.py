"""PanoShapes: synthetic panoramas with coloured shapes at known directions, and questions whose answers can be checked exactly.

A scene is a smooth background on the sphere plus at most one shape in each direction sector. Shapes are drawn in the tangent plane at their
own centre, so they are distorted correctly and run across the left and right edge of the panorama (the seam, behind). No files here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from panollava.views import Floats, Image

COLOURS = {
    "red": (0.90, 0.08, 0.08),
    "green": (0.08, 0.70, 0.15),
    "blue": (0.10, 0.25, 0.95),
    "yellow": (0.98, 0.88, 0.08),
    "purple": (0.62, 0.12, 0.78),
    "white": (0.97, 0.97, 0.97),
}
"""Name -> RGB in 0..1."""
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = ("in front", "on the right", "behind", "on the left")
"""Sector s is centred at yaw 90 s: clockwise from above, as a panorama turns when it is rolled to the right."""
BEHIND = DIRECTIONS.index("behind")
WHAT = ("what is {direction}", "what do you see {direction}", "describe the object {direction}")
WHERE = ("where is the {object}", "in which direction is the {object}", "find the {object}")
OVERVIEW = ("overview", "objects")

JITTER, PITCH = 25.0, 15.0
"""Degrees by which an object may be off its sector's centre: well inside the 45 that would make its direction a matter of taste."""
SIZES = (0.30, 0.40)
"""Half the width of an object, in the tangent plane: 17 to 22 degrees."""
MIX = {"what": 0.45, "where": 0.35, "overview": 0.20}
"""Shares of the kinds among random questions."""

Kind = Literal["what", "where", "overview"]


@dataclass(frozen=True)
class Object:
    """A coloured shape. `yaw` (0..360) and `pitch` of its centre in degrees, `size` its half width in the tangent plane."""

    sector: int
    colour: str
    shape: str
    yaw: float
    pitch: float
    size: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def direction(self) -> str:
        return DIRECTIONS[self.sector]

    @property
    def on_seam(self) -> bool:
        """Whether the seam cuts it by a fair margin."""
        return abs(self.yaw - 180) < _seam_reach(self.size)


Scene = Sequence[Object]


@dataclass(frozen=True)
class Question:
    """A query with every accepted wording of its answer. `expect` holds the words that a right answer must contain, by figure."""

    query: str
    references: tuple[str, str, str]
    kind: Kind
    template: str
    expect: dict[str, str] = field(default_factory=dict)
    seam: bool = False


def sample_scene(rng: np.random.Generator, p_object: float = 0.7, p_seam: float = 0.0) -> Scene:
    """One to four objects in sector order, colours all different. With `p_seam`, the object behind is put across the seam on purpose."""
    while not len(sectors := np.flatnonzero(rng.random(len(DIRECTIONS)) < p_object)):
        pass
    colours = rng.permutation(list(COLOURS))
    return [_place(rng, int(sector), str(colour), p_seam) for sector, colour in zip(sectors, colours, strict=False)]


def what(scene: Scene, sector: int, rng: np.random.Generator) -> Question:
    """What is there in a direction?"""
    found = next((each for each in scene if each.sector == sector), None)
    thing = f"a {found.name}" if found else "nothing"
    expect = {"colour": found.colour, "shape": found.shape} if found else {}
    template = WHAT[rng.integers(len(WHAT))]
    references = (thing, f"there is {thing}", f"i see {thing}")
    return Question(template.format(direction=DIRECTIONS[sector]), references, "what", template, expect, found is not None and found.on_seam)


def where(thing: Object, rng: np.random.Generator) -> Question:
    """In which direction is an object?"""
    template = WHERE[rng.integers(len(WHERE))]
    references = (thing.direction, f"it is {thing.direction}", f"the {thing.name} is {thing.direction}")
    return Question(template.format(object=thing.name), references, "where", template, {"direction": thing.direction}, thing.on_seam)


def overview(scene: Scene, rng: np.random.Generator) -> Question:
    """What is there, and where?"""
    template = OVERVIEW[rng.integers(len(OVERVIEW))]
    parts = [f"a {each.name} {each.direction}" for each in scene]
    return Question(template, (", ".join(parts), f"there is {' and '.join(parts)}", f"i see {', '.join(parts)}"), "overview", template)


def random_question(scene: Scene, rng: np.random.Generator) -> Question:
    """A question of a random kind, in the shares of MIX."""
    kind = rng.choice(list(MIX), p=list(MIX.values()))
    if kind == "what":
        return what(scene, int(rng.integers(len(DIRECTIONS))), rng)
    if kind == "where":
        return where(scene[int(rng.integers(len(scene)))], rng)
    return overview(scene, rng)


def every_question(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Each direction, each object, and the overview, in random wordings."""
    whats = [what(scene, sector, rng) for sector in range(len(DIRECTIONS))]
    return [*whats, *(where(thing, rng) for thing in scene), overview(scene, rng)]


class Renderer:
    """Draws scenes as panoramas of `height` x 2 `height` pixels."""

    def __init__(self, height: int = 256) -> None:
        self.height, self.width = height, 2 * height
        longitude = ((np.arange(self.width) + 0.5) / self.width - 0.5) * 2 * np.pi
        latitude = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
        u, v = np.meshgrid(longitude, latitude)
        x, y, z = rays = np.stack([np.cos(v) * np.sin(u), np.sin(v), np.cos(v) * np.cos(u)]).reshape(3, -1).astype(np.float32)
        self._rays = rays  # [3, H*W], x right, y up, z front
        # Smooth functions of the direction: neither a seam nor a mark at the poles. [10, H*W]
        self._basis = np.stack([np.ones_like(x), np.tanh(3 * y), x, y, z, x * y, y * z, z * x, x * x - z * z, 3 * y * y - 1])
        self._grain = np.random.default_rng(0).normal(0, 0.015, rays.size).astype(np.float32)

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Image:
        """uint8 [H, 2H, 3]; the background and the brightness of the objects come from `rng`."""
        pixels = self._background(rng)
        for thing in scene:
            self._draw(pixels, thing, rng)
        return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(self.height, self.width, 3)

    def _background(self, rng: np.random.Generator) -> Floats:
        weights = rng.normal(0, 0.022, (10, 3)) + rng.normal(0, 0.03, (10, 1))
        weights[0] = rng.uniform(0.22, 0.42) + rng.normal(0, 0.02, 3)
        grain = np.roll(self._grain, rng.integers(self._grain.size)).reshape(-1, 3)
        return np.asarray(self._basis.T @ weights.astype(np.float32) + grain)

    def _draw(self, pixels: Floats, thing: Object, rng: np.random.Generator) -> None:
        """Blend one object into pixels [H*W, 3]."""
        yaw, pitch = math.radians(thing.yaw), math.radians(thing.pitch)
        ahead = np.array([math.cos(pitch) * math.sin(yaw), math.sin(pitch), math.cos(pitch) * math.cos(yaw)], np.float32)
        right = np.array([math.cos(yaw), 0, -math.sin(yaw)], np.float32)
        up = np.cross(ahead, right)
        near = np.flatnonzero(ahead @ self._rays > math.cos(math.atan(1.5 * thing.size)))
        rays = self._rays[:, near]
        depth = (ahead @ rays) * thing.size
        distance = _distance(thing.shape, right @ rays / depth, up @ rays / depth) * thing.size
        edge = 2 * math.pi / self.width  # one pixel, radians
        alpha = np.clip(0.5 - distance / edge, 0, 1)[:, None].astype(np.float32)
        colour = np.array(COLOURS[thing.colour], np.float32) * np.float32(rng.uniform(0.85, 1))
        pixels[near] += alpha * (colour - pixels[near])


def _place(rng: np.random.Generator, sector: int, colour: str, p_seam: float) -> Object:
    size = float(rng.uniform(*SIZES))
    across = sector == BEHIND and rng.random() < p_seam
    reach = min(JITTER, _seam_reach(size)) if across else JITTER
    yaw = float((sector * 90 + rng.uniform(-reach, reach)) % 360)
    return Object(sector, colour, SHAPES[rng.integers(len(SHAPES))], yaw, float(rng.uniform(-PITCH, PITCH)), size)


def _seam_reach(size: float) -> float:
    """Degrees from the seam within which an object's centre is cut by it, and not just touched."""
    return 0.8 * math.degrees(math.atan(size))


def _distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Approximate signed distance from the edge of the unit-size shape, negative inside; y is up."""
    across, along = np.abs(x), np.abs(y)
    match shape:
        case "circle":
            distance = np.hypot(x, y) - 0.95
        case "square":
            distance = np.maximum(across, along) - 0.85
        case "triangle":
            distance = np.maximum(-y - 0.75, (2 * across + y - 1.05) / math.sqrt(5))
        case "cross":
            distance = np.minimum(np.maximum(across - 0.32, along - 1), np.maximum(along - 0.32, across - 1))
        case _:
            raise ValueError(f"No shape is called {shape}.")
    return np.asarray(distance, np.float32)
