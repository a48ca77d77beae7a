"""Second names for the checkpoints of an attempt whose files go to a store: what its trainer removes is here until the store has it.

A checkpoint has one before it has a row, so whatever people can see and want is there to be uploaded, however quickly newer ones come. Bytes
of one that nobody wanted go as soon as its row has gone.
"""

import errno
import glob
from collections.abc import Iterator
from pathlib import Path

from app.checkpoints.lists import SECOND_NAMES
from panollava import rundir
from panollava.events import CheckpointRemoved, CheckpointSaved, decode

HELD = ".held"
"""Directory of second names, under which a file stays as it is, whatever the trainer does with the first."""

GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
"""There is no such file. A disk that is full or away says something else, and is asked again."""


def path_of(directory: Path, name: str, sha256: str) -> Path:
    return directory / HELD / f"{sha256[:16]}-{Path(name).name}"


def make(directory: Path, lines: bytes) -> set[str]:
    """One for every file that these events tell of. The paths of those that the trainer has removed already.

    `best` and `last` need none: they are second names themselves.
    """
    saved = [event for event in _checkpoints(lines) if isinstance(event, CheckpointSaved) and event.kind not in SECOND_NAMES]
    return {event.path for event in saved if not link(directory / event.path, path_of(directory, event.path, event.sha256))}


def link(checkpoint: Path, held: Path) -> bool:
    """The file and its note, as they are now. False if they are gone."""
    try:
        if not rundir.note_path(held).exists():
            held.parent.mkdir(exist_ok=True)
            rundir.link_whole(checkpoint, held)
            rundir.link_whole(rundir.note_path(checkpoint), rundir.note_path(held))
    except OSError as error:
        if error.errno not in GONE:
            raise
        return False
    return True


def removed(lines: bytes) -> list[str]:
    """The paths of checkpoints that these events say the trainer has removed."""
    return [event.path for event in _checkpoints(lines) if isinstance(event, CheckpointRemoved)]


def forget(directory: Path, name: str) -> None:
    """Of a file that nobody can want any more."""
    for held in (directory / HELD).glob(f"*-{glob.escape(Path(name).name)}"):
        drop(held)


def drop(held: Path) -> None:
    """The note first: where it is, the file is."""
    rundir.note_path(held).unlink(missing_ok=True)
    held.unlink(missing_ok=True)


def _checkpoints(lines: bytes) -> Iterator[CheckpointSaved | CheckpointRemoved]:
    """What is no event is told of where it is stored."""
    for line in lines.splitlines():
        if b'"checkpoint"' in line or b'"removed"' in line:
            try:
                event = decode(line)
            except ValueError:
                continue
            if isinstance(event, CheckpointSaved | CheckpointRemoved):
                yield event
