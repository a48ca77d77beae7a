"""Which files of a table have been read whole before, so that a run need not read them again to know that they are sound."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any
from uuid import uuid4

from panollava.data.images import Picture
from panollava.data.room import PART

log = logging.getLogger("panollava")


class Seen:
    """Pictures by path, as long as size, times and place of the file are what they were. Kept in one file for each set of tables."""

    def __init__(self, cache: Path, tables: Sequence[Path]) -> None:
        name = hashlib.sha256("\n".join(str(table.absolute()) for table in tables).encode()).hexdigest()[:24]
        self._file = cache / "seen" / f"{name}.json"
        self._known = _load(self._file)
        self._changed = False

    def get(self, path: Path) -> Picture | None:
        """What the file held, if nothing about it has changed since."""
        known = self._known.get(str(path))
        return Picture(*known[1:]) if known and known[0] == stamp(path) else None

    def put(self, path: Path, picture: Picture, before: list[int]) -> None:
        """Remember what was read. `before` is its stamp from before it was read: a file that changed meanwhile is not remembered."""
        if stamp(path) == before:
            self._known[str(path)] = [before, *astuple(picture)]
            self._changed = True

    def save(self) -> None:
        """Two runs that save at once do no harm: what one of them forgets is read again."""
        if self._changed:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_name(f"{uuid4().hex}{PART}")
            part.write_text(json.dumps(self._known))
            part.replace(self._file)


def stamp(path: Path) -> list[int]:
    """Changes whenever a file is written to or replaced, also where its size and its modification time are kept; empty where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return []
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        log.warning("%s: damaged, so the images of its tables are read again", path)
        return {}
    return dict(known)
