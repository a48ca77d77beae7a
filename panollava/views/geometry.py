"""Rays, pixels and outlines of views. Conventions as in `panollava.layouts`; arrays are in the order of image rows and columns."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from panollava.layouts import View

# H, W panorama, S pixels per view side
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def footprint(view: View, n: int) -> Doubles:
    """What the view shows, as points on its edge: longitude in [-180, 180) and latitude in degrees, from the top left corner clockwise.

    Each side has `n` points, evenly spaced in the view; the last point's neighbour is the first. [4n, 2]
    """
    along, end = np.arange(n) / n * 2 - 1, np.ones(n)
    u, v = np.concatenate([along, end, -along, -end]), np.concatenate([-end, along, end, -along])
    longitude, latitude = np.degrees(angles(view, u, v))
    return np.stack([(longitude + view.yaw + 180) % 360 - 180, latitude], axis=-1)


def reference(panorama: Image, view: View, size: int) -> Floats:
    """What `Cutter` approximates: plain bilinear samples of the full panorama, one per pixel. uint8 [H, W, 3] -> float32 [S, S, 3]."""
    height, width = panorama.shape[:2]
    column, row = pixels(view, size, width, height)
    padded = pad(panorama).astype(np.float64)
    x, y = np.floor(column).astype(int), np.floor(row).astype(int)
    right, down = (column - x)[..., None], (row - y)[..., None]
    upper = padded[y, x] * (1 - right) + padded[y, x + 1] * right
    lower = padded[y + 1, x] * (1 - right) + padded[y + 1, x + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def tangent(fov: float) -> float:
    """Half the width of the picture plane at depth 1."""
    return math.tan(math.radians(fov / 2))


def rotation(view: View) -> Doubles:
    """From the frame of a view (x right, y up, z ahead) to the panorama's. [3, 3]"""
    cos_yaw, sin_yaw = math.cos(math.radians(view.yaw)), math.sin(math.radians(view.yaw))
    cos_pitch, sin_pitch = math.cos(math.radians(view.pitch)), math.sin(math.radians(view.pitch))
    turn = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    tilt = np.array([[1, 0, 0], [0, cos_pitch, sin_pitch], [0, -sin_pitch, cos_pitch]])
    return np.asarray(turn @ tilt, np.float64)


def angles(view: View, u: Doubles, v: Doubles) -> tuple[Doubles, Doubles]:
    """Longitude from the view's yaw, and latitude, radians, of points of the view: u to the right and v down, in [-1, 1]."""
    if view.projection == "equirectangular":
        return u * math.radians(view.fov / 2), -v * (math.pi / 2)
    x, y, angle = u * tangent(view.fov), -v * tangent(view.fov), math.radians(view.pitch)
    up, ahead = y * math.cos(angle) + math.sin(angle), math.cos(angle) - y * math.sin(angle)
    return np.arctan2(x, ahead), np.arctan2(up, np.hypot(x, ahead))


def pixels(view: View, size: int, width: int, height: int) -> tuple[Doubles, Doubles]:
    """Column in [1, W+1] and row in [0, H+1] of the padded panorama behind each pixel centre of the view, both [S, S]."""
    centres = (np.arange(size) + 0.5) / size * 2 - 1
    longitude, latitude = angles(view, *np.meshgrid(centres, centres))
    column = (longitude / (2 * math.pi) + 0.5 + view.yaw / 360) * width - 0.5
    return column % width + 1, (0.5 - latitude / math.pi) * height + 0.5


def pad(panorama: Image, top: int = 0, bottom: int | None = None) -> Image:
    """[H, W, 3] -> rows `top` to `bottom` of [H+2, W+2, 3]: a side continues with the other one, a pole with its row seen from the other side."""
    height, width = panorama.shape[:2]
    bottom = height + 2 if bottom is None else bottom
    above, below = int(top == 0), int(bottom == height + 2)
    inner = panorama[top - 1 + above : bottom - 1 - below]
    padded = cv2.copyMakeBorder(inner, above, below, 1, 1, cv2.BORDER_WRAP)
    for row, pole in [(0, 0)] * above + [(-1, height - 1)] * below:
        across = np.roll(panorama[pole], width // 2, axis=0)
        padded[row] = np.concatenate([across[-1:], across, across[:1]])
    return np.asarray(padded, np.uint8)
