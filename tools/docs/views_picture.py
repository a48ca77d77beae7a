"""docs/img/views.png: what each crop strategy shows of one panorama, outlined in the order in which the model reads it.

Every panel is drawn at SCALE times its size and averaged down, which smooths lines and the renderer's grain.
"""

import colorsys
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image as pil
from PIL import ImageDraw, ImageFont

from panollava.config import RunConfig
from panollava.data.panoshapes import Object, Renderer
from panollava.layouts import View, layout
from panollava.views import Cutter, Image, footprint

# A panel is 2 H x H pixels
HEIGHT, SCALE, GAP, CAPTION = 272, 3, 12, 26
COLOURS = 128
SCENE = (
    Object(0, "red", "circle", 4, 6, 0.34),
    Object(1, "yellow", "triangle", 84, -9, 0.38),
    Object(2, "blue", "square", 187, 3, 0.36),
    Object(3, "green", "cross", 276, 10, 0.33),
)
"""One object in each direction; the one behind lies across the seam."""
WORDS = {
    "e2p": "e2p: 8 perspective views, each sharing half with the next",
    "anyres_e2p": "anyres_e2p: the whole, then a ring at each of three pitches",
    "cubemap": "cubemap: six faces, no overlap",
    "sliding_window": "sliding_window: 8 full-height crops",
    "resize": "resize: the whole as one square",
}


def picture() -> pil.Image:
    """Five strategies on one panorama, and the eight views of the first."""
    panorama = Renderer(HEIGHT * SCALE)(SCENE, np.random.default_rng(5))
    panels = [(words, _outlined(panorama, layout(RunConfig.model_validate({"crop_strategy": name})).views)) for name, words in WORDS.items()]
    panels.insert(1, ("the same 8 views, as the vision encoder is given them", _cut(panorama)))
    across, down = 2 * HEIGHT + GAP, HEIGHT + CAPTION
    sheet = pil.new("RGB", (2 * across + GAP, 3 * down + GAP), "white")
    for place, (words, panel) in enumerate(panels):
        x, y = GAP + place % 2 * across, GAP + place // 2 * down
        sheet.paste(panel, (x, y))
        ImageDraw.Draw(sheet).text((x, y + HEIGHT + 3), words, "black", ImageFont.load_default(15))
    return sheet.quantize(COLOURS, dither=pil.Dither.NONE)


def _cut(panorama: Image) -> pil.Image:
    """Four views above four, numbered."""
    views = layout(RunConfig()).views
    side = HEIGHT // 2
    panel = pil.new("RGB", (4 * side, 2 * side), "white")
    for place, pixels in enumerate(Cutter(views, side - 2)(panorama)):
        tile = pil.fromarray(pixels)
        ImageDraw.Draw(tile).text((5, 2), str(place + 1), _colour(views[place]), ImageFont.load_default(17), stroke_width=2, stroke_fill="black")
        panel.paste(tile, (place % 4 * side + 1, place // 4 * side + 1))
    return panel


def _outlined(panorama: Image, views: tuple[View, ...]) -> pil.Image:
    """A panorama with the outline and the place of every view."""
    panel = pil.fromarray(panorama)
    draw = ImageDraw.Draw(panel)
    for place, view in enumerate(views):
        _outline(draw, _edge(view, place), panel.width, _colour(view))
    for place, view in enumerate(views):
        font = ImageFont.load_default(17 * SCALE)
        draw.text(_label(view, panel.width), str(place + 1), _colour(view), font, anchor="mm", stroke_width=2 * SCALE, stroke_fill="black")
    return panel.reduce(SCALE)


def _edge(view: View, place: int) -> npt.NDArray[np.float64]:
    """The outline, a little inside of what the view shows, so that edges that fall together stay apart. Degrees [M, 2], closed"""
    edge = footprint(View(view.yaw, view.pitch, 0.97 * view.fov, view.projection), 60)
    if view.projection == "equirectangular":
        edge[:, 1] *= 0.97 - 0.05 * (place % 2)
    return np.concatenate([edge, edge[:1]])


def _outline(draw: ImageDraw.ImageDraw, edge: npt.NDArray[np.float64], width: int, colour: str) -> None:
    for (longitude, latitude), (next_longitude, next_latitude) in pairwise(edge):
        step = (next_longitude - longitude + 180) % 360 - 180
        for turn in (-360, 0, 360):  # what leaves on one side comes back on the other
            ends = [_pixel(longitude + turn, latitude, width), _pixel(longitude + turn + step, next_latitude, width)]
            draw.line(ends, colour, 2 * SCALE)


def _pixel(longitude: float, latitude: float, width: int) -> tuple[float, float]:
    return (longitude / 360 + 0.5) * width, (0.5 - latitude / 180) * width / 2


def _label(view: View, width: int) -> tuple[float, float]:
    """Where a view looks; the whole, which looks everywhere, is named in a corner."""
    if view.fov == 360:
        return _pixel(-168, 76, width)
    inside = 360 * 11 * SCALE / width  # half a number's width, so that it is not cut by the seam
    return _pixel(max((view.yaw + 180) % 360 - 180, inside - 180), max(-78.0, min(78.0, view.pitch)), width)


def _colour(view: View) -> str:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(view.yaw / 360, 0.55, 1))
    return "white" if view.fov == 360 else f"rgb({red},{green},{blue})"
