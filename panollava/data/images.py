"""Read one panorama from a file, whole or not at all. No table, no views."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image as pil
from PIL import ImageOps, UnidentifiedImageError

from panollava.errors import BadInput
from panollava.views import Image

MAX_PIXELS = 2**28
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
ASPECT_WARNING, ASPECT_ERROR = 0.02, 0.10
"""Shares by which width / height may differ from 2 before it is remarked on, and before the image is no panorama."""

pil.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own guard against decompression bombs, kept, at the limit we state.


class BadImage(BadInput):
    """A file that does not hold a panorama. `reason` is the message without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def load_panorama(path: Path, at_least: int | None = None) -> Image:
    """RGB uint8 [H, W, 3], turned as its EXIF says. Raises BadImage unless every pixel can be read.

    With `at_least`, a JPEG that is two to eight times as wide is decoded that much smaller, and much faster.
    """
    try:
        with pil.open(path, formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise BadImage(path, f"{file.width:,} x {file.height:,} pixels; at most {MAX_PIXELS:,} are read")
            if at_least is not None:
                file.draft("RGB", (at_least, at_least // 2))
            return _rgb(ImageOps.exif_transpose(file))
    except UnidentifiedImageError:
        raise BadImage(path, f"not an image in one of {', '.join(FORMATS)}") from None
    except pil.DecompressionBombError:
        raise BadImage(path, f"more than {MAX_PIXELS:,} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:  # what Pillow's decoders raise for damaged files
        raise BadImage(path, getattr(error, "strerror", None) or str(error)) from None


def off_aspect(width: int, height: int) -> float:
    """How far an image is from the 2:1 of a whole sphere, as a share: 0.0 for 1024x512, 0.1 for 1126x512."""
    return abs(width / (2 * height) - 1)


def _rgb(image: pil.Image) -> Image:
    """uint8 [H, W, 3]. 16-bit grey is scaled, because Pillow's own conversion clips it."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the image with 8 bits per channel")
    return np.asarray(image.convert("RGB"), np.uint8)
