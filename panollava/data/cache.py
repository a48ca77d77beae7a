"""Arrays that take long to make, kept on disk between runs: the views of a panorama, and what a frozen encoder sees in them.

One file per array, in a directory named by how it was made and under the sha256 of the image that it was made from. A file appears whole
or not at all, and is believed only if its length and its checksum are those in its first line. How much may lie there: `room.py`.
"""

import hashlib
import json
import logging
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

import cv2
import numpy as np
import numpy.typing as npt
import PIL

from panollava.data.images import Reading
from panollava.data.room import NO_SPACE, PART, Room
from panollava.errors import BadInput
from panollava.views import Cutter

log = logging.getLogger("panollava")
Array = npt.NDArray[Any]
Kind = Literal["views", "features"]
HEADER = 256
"""Bytes of the first line: a length that keeps the array aligned."""
CUT = 1
"""Counts changes of the code that alter the pixels of views, so that old ones are not taken for new ones."""
DIRECTORY = Path("~/.cache/panollava")


@dataclass(frozen=True)
class Form:
    """What the first line of a file says of the array in it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    crc32: int

    @classmethod
    def of(cls, header: bytes, size: int) -> Self:
        """Raises ValueError for a file that says no such thing, or has another size."""
        try:
            said = json.loads(header)
            form = cls(tuple(said["shape"]), np.dtype(said["dtype"]), int(said["crc32"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"its first line lacks {error}") from None
        wanted = HEADER + math.prod(form.shape) * form.dtype.itemsize
        if size != wanted:
            raise ValueError(f"{size:,} of {wanted:,} bytes")
        return form


class Entries:
    """The arrays that were made in one way, by the sha256 of their image. Safe to share between threads, processes and runs."""

    def __init__(self, room: Room, kind: Kind, recipe: str) -> None:
        self.room, self.recipe = room, recipe
        self.directory = room.root / kind / hashlib.sha256(recipe.encode()).hexdigest()[:24]
        self._known: dict[str, Form] = {}
        """What this process has compared with its checksum: once is enough, because a file is never written again."""

    def __contains__(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def use(self, name: str) -> bool:
        """Whether it is there; if so it stays until this run ends."""
        return self.room.use(self.directory / name)

    def get(self, name: str, into: Array | None = None) -> Array | None:
        """The array, read `into` one of its own form where there is one; None if it is not there. A damaged file is removed."""
        try:
            return self._read(name, into)
        except FileNotFoundError:
            return None
        except ValueError as error:
            path = self.directory / name
            log.warning("%s: damaged (%s) and removed", path, error)
            path.unlink(missing_ok=True)
            return None

    def stacked(self, names: Sequence[str]) -> Array | None:
        """Arrays of one form, [len(names), ...]; None unless all are there. Each is copied once, from its file to its place."""
        first = self.get(names[0])
        if first is None:
            return None
        together = np.empty((len(names), *first.shape), first.dtype)
        together[0] = first
        return together if all(self.get(name, place) is not None for name, place in zip(names[1:], together[1:], strict=True)) else None

    def _read(self, name: str, into: Array | None) -> Array:
        file = os.open(f"{self.directory}/{name}", os.O_RDONLY)
        try:
            form = self._known.get(name) or Form.of(os.pread(file, HEADER, 0), os.fstat(file).st_size)
            array = np.empty(form.shape, form.dtype) if into is None else into
            if (array.shape, array.dtype) != (form.shape, form.dtype):
                raise ValueError(f"{form.shape} {form.dtype} among arrays of {array.shape} {array.dtype}")
            if os.preadv(file, [array.data], HEADER) != array.nbytes:
                raise ValueError("it has become shorter")
        finally:
            os.close(file)
        if name not in self._known and _checksum(array) != form.crc32:
            raise ValueError("its checksum is another")
        self._known[name] = form
        return array

    def put(self, name: str, array: Array) -> bool:
        """Keep an array, if there is room for it; whether it is there now. Two that put the same at once do no harm."""
        path, array = self.directory / name, np.ascontiguousarray(array)
        if self.use(name):
            return True
        with self.room.taken(path, HEADER + array.nbytes) as has_room:
            return has_room and self._write(path, array)

    def _write(self, path: Path, array: Array) -> bool:
        """Whether the disk had the room that it said it had."""
        part = path.with_name(f"{path.name}.{uuid4().hex}{PART}")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(_header(array))
                file.write(array.data)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno not in NO_SPACE:
                raise
            self.room.close()
            return False
        return True


def views_recipe(cutter: Cutter, reading: Reading) -> str:
    """All that the pixels of views depend on besides the image: whatever the cutter holds, and who decodes and draws."""
    makers = {"cut": CUT, "opencv": cv2.__version__, "pillow": PIL.__version__, "at_least": reading.at_least}
    return f"{sorted(vars(cutter).items())} {sorted(makers.items())}"


def open_room(directory: str | None, gigabytes: float) -> Room:
    """The cache directory, made if need be. Raises BadInput where nothing can be written."""
    root = Path(directory) if directory else DIRECTORY
    root = root.expanduser().absolute()
    probe = root / f"{uuid4().hex}{PART}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        return Room(root, int(gigabytes * 1e9))
    except OSError as error:
        why = f"cannot be written ({error.strerror}); name another directory, or set cache to off"
        raise BadInput(f"cache_dir is {root}: it {why}.", [("cache_dir", f"{root} {why}.")]) from None


def _checksum(array: Array) -> int:
    return zlib.crc32(array.data)


def _header(array: Array) -> bytes:
    line = json.dumps({"dtype": array.dtype.str, "shape": array.shape, "crc32": _checksum(array)})
    return line.encode().ljust(HEADER - 1) + b"\n"
