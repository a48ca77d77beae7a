"""What a backup file is: a tar.gz with a copy of the database, small files of runs and evaluations, and last a manifest with their checksums."""

import hashlib
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import Invalid
from app.i18n import _

MANIFEST = "manifest.json"
DATABASE = "database"
ARTIFACTS = "artifacts"
"""Directory in the archive whose files lie below PANOLLAVA_ARTIFACTS."""
PIECE = 1 << 20

Heard = Callable[[str, int, int], None]
"""Is told how far it is: what, bytes done, bytes in all."""


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """What is in a backup, and where it came from."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    version: str
    database: Literal["sqlite", "postgresql"]
    created_at: datetime
    artifacts: str
    """Where artifacts lay: rows hold absolute paths."""
    with_checkpoints: bool
    files: dict[str, Entry]
    left_out: list[str] = []
    """Directories of runs that lie elsewhere, such as imported ones."""


def read_manifest(data: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise Invalid(_("No backup of this version: {what}.").format(what=error.errors()[0]["msg"])) from None


def check_name(member: tarfile.TarInfo) -> str:
    """The name of a file that a backup may hold. Raises Invalid for anything that would land elsewhere."""
    path = PurePosixPath(member.name)
    is_ours = member.name in (MANIFEST, DATABASE) or path.parts[0] == ARTIFACTS
    if path.is_absolute() or ".." in path.parts or not is_ours or not (member.isfile() or member.islnk()):
        raise Invalid(_("No backup of ours: it holds {name!r}.").format(name=member.name))
    return member.name


class Hashing:
    """A file that is read to be copied, and what was read of it."""

    def __init__(self, file: IO[bytes], heard: Callable[[int], None] = lambda size: None) -> None:
        self._file, self._heard, self._hash = file, heard, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self._heard(len(data))
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()
