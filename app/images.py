"""A panorama as a browser is shown it: a JPEG, at most so many pixels wide. Who may see which panorama is the caller's business."""

import os
from io import BytesIO
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated

from fastapi import Query, Request, Response
from PIL import Image as pil

from app.errors import NotFound
from app.i18n import _
from panollava.data.images import load_panorama

WIDEST = 4096
"""Pixels; what every graphics card takes as one texture."""
QUALITY = 85
_decoders = BoundedSemaphore(os.cpu_count() or 1)
"""A panorama takes up to 400 MB while it is decoded, and a page asks for dozens at once."""

Width = Annotated[int, Query(ge=16, le=WIDEST, description="Most pixels from left to right; a smaller panorama is not enlarged.")]


def jpeg(path: Path, width: int) -> bytes:
    """The panorama without what a camera wrote beside it. Raises BadImage."""
    with _decoders:
        picture = pil.fromarray(load_panorama(path, width))
    if picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))), pil.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def answer(request: Request, path: Path, width: int) -> Response:
    """The picture, or nothing for a browser that has it already. Raises NotFound or BadImage."""
    try:
        stat = path.stat()
    except OSError as error:
        raise NotFound(_("{path}: {reason}.").format(path=path, reason=error.strerror)) from None
    tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}-{width}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}  # kept, but asked about again: the file may change
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(jpeg(path, width), media_type="image/jpeg", headers=headers)
