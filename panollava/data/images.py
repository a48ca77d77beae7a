"""Read one panorama from a file, whole or not at all. No table, no views."""

import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as pil
from PIL import ImageOps, UnidentifiedImageError

from panollava.errors import BadInput
from panollava.views import Image

MAX_PIXELS = 2**27
"""16,384 x 8,192: 400 MB of memory for each of several images at once."""
MAX_BYTES = 2**30
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
ASPECT_WARNING, ASPECT_ERROR = 0.02, 0.10
"""Shares by which width / height may differ from 2 before it is remarked on, and before the image is no whole panorama."""

pil.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own guard against decompression bombs, kept, at the limit we state.


class BadImage(BadInput):
    """A file that does not hold a panorama. `reason` is the message without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """What is known of a file that has been read whole: the sha256 of its bytes, and its pixels as its EXIF turns them."""

    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Reading:
    """How files become panoramas. With `at_least`, a JPEG that is two to eight times as wide is decoded that much smaller, and much faster."""

    at_least: int | None = None
    partial: bool = False
    """Whether an image may show less than the whole sphere; what it does not show is black."""


@dataclass(frozen=True)
class Panorama:
    """RGB uint8 [H, W, 3], and the picture it came from, which may be wider."""

    pixels: Image
    picture: Picture


def load_panorama(path: Path, at_least: int | None = None, *, partial: bool = False) -> Image:
    """RGB uint8 [H, W, 3], turned as its EXIF says. Raises BadImage unless every pixel can be read. Its aspect is for the caller to judge."""
    return read_panorama(path, Reading(at_least, partial)).pixels


def read_panorama(path: Path, reading: Reading = Reading()) -> Panorama:
    """A panorama with what identifies its file. Raises BadImage as `load_panorama` does."""
    try:
        data = _bytes(path)
        with pil.open(io.BytesIO(data), formats=FORMATS) as file:
            _check(path, file)
            swapped = file.getexif().get(_ORIENTATION, 1) in _LYING
            width, height = (file.height, file.width) if swapped else (file.width, file.height)
            if reading.at_least is not None:
                file.draft("RGB", (reading.at_least, reading.at_least // 2))
            ImageOps.exif_transpose(file, in_place=True)
            pixels = _rgb(file)
    except UnidentifiedImageError:
        raise BadImage(path, f"not an image in one of {', '.join(FORMATS)}") from None
    except pil.DecompressionBombError:
        raise BadImage(path, f"more than {MAX_PIXELS:,} pixels, and no more are read") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:  # what Pillow's decoders raise for damaged files
        raise BadImage(path, getattr(error, "strerror", None) or str(error)) from None
    if reading.partial and off_aspect(width, height) > ASPECT_ERROR:
        pixels = completed(path, pixels)
    return Panorama(pixels, Picture(hashlib.sha256(data).hexdigest(), width, height))


def off_aspect(width: int, height: int) -> float:
    """How far an image is from the 2:1 of a whole sphere, as a share: 0.0 for 1024x512, 0.1 for 1126x512."""
    return abs(width / (2 * height) - 1)


def unusable(width: int, height: int, partial: bool = False) -> str:
    """Why an image of this size cannot be used; empty when it can."""
    if off_aspect(width, height) > ASPECT_ERROR and not partial:
        return f"{width} x {height} pixels are not the 2:1 of a whole panorama (--allow-partial-pano takes it for a part of one)"
    return ""


_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values that exchange width and height."""


def _bytes(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadImage(path, f"{size:,} bytes; at most {MAX_BYTES:,} are read")
    return path.read_bytes()


def _check(path: Path, file: pil.Image) -> None:
    """What can be seen before a pixel is decoded. A JPEG may carry more pictures behind its own, such as a gain map, but is one photograph."""
    if file.width * file.height > MAX_PIXELS:
        raise BadImage(path, f"{file.width:,} x {file.height:,} pixels; at most {MAX_PIXELS:,} are read")
    if file.format != "MPO" and (frames := getattr(file, "n_frames", 1)) > 1:
        raise BadImage(path, f"{frames:,} frames; a panorama is one picture")


def completed(path: Path, pixels: Image) -> Image:
    """The picture [H, W, 3] in the middle of a black 2:1: a wide one shows all around between two latitudes, a narrow one from pole to pole ahead."""
    height, width = pixels.shape[:2]
    whole_height = max(height, -(-width // 2))
    whole_width = 2 * whole_height
    if whole_width * whole_height > MAX_PIXELS:
        raise BadImage(path, f"{width:,} x {height:,} pixels are part of a sphere of {whole_width:,} x {whole_height:,}; at most {MAX_PIXELS:,} fit")
    whole = np.zeros((whole_height, whole_width, 3), np.uint8)
    top, left = (whole_height - height) // 2, (whole_width - width) // 2
    whole[top : top + height, left : left + width] = pixels
    return whole


def _rgb(image: pil.Image) -> Image:
    """uint8 [H, W, 3]. 16-bit grey is scaled, because Pillow's own conversion clips it."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the image with 8 bits per channel")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)
