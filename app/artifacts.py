"""Where artifacts lie: in directories that everybody sees, or as objects of an S3 store of which each host keeps copies in a scratch directory.

The only module that knows storage. A name says by itself which of the two it is: a path, or `s3://bucket/key`. Credentials, region and
endpoint are those AWS_* variables that every S3 tool reads; they are not settings of ours and are written down nowhere.
"""

import posixpath
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.errors import AppError
from app.i18n import _
from panollava import rundir
from panollava.errors import BadInput
from panollava.rundir import CheckpointNote

S3 = "s3://"
SHA256 = "sha256"
"""The checksum of an object's bytes, among its metadata."""
PART_BYTES = 64 << 20
AT_ONCE = 4
"""Parts of one file on their way at the same time: a quarter of a gigabyte of memory."""
TRIES = 2
"""Whoever waits for the store tries again in his own time, and says so; here only a hiccup is passed over."""

Tell = Callable[[int], None]
"""Told of bytes on their way; what it raises ends the transfer."""


class Gone(BadInput):
    """The store answers, and does not have this file as it should be."""


class Away(AppError):
    """The store does not answer, or does not let us in: worth another try."""

    status = 503


# Names


def is_remote(name: str | Path) -> bool:
    return str(name).startswith(S3)


def join(name: str | Path, *parts: str) -> str:
    return posixpath.join(str(name), *parts) if is_remote(name) else str(Path(name, *parts))


def resolve(directory: str, relative: str) -> str:
    """The name of what a trainer calls `relative` in its directory; look with `is_below` whether it lies there."""
    if not is_remote(directory):
        return str(Path(directory, relative).resolve())
    return S3 + posixpath.normpath(posixpath.join(directory.removeprefix(S3), relative))


def is_below(name: str, directory: str | Path) -> bool:
    if is_remote(name):
        return name.startswith(f"{directory}/") and posixpath.normpath(name.removeprefix(S3)) == name.removeprefix(S3)
    return not is_remote(directory) and Path(name).is_relative_to(Path(directory).resolve())


def local(name: str, scratch: Path | None = None) -> Path:
    """Where it lies on this host, or would: its own path, or its place in the scratch directory."""
    if not is_remote(name):
        return Path(name)
    if scratch is None:
        raise ValueError(f"{name} has no place on this host without a scratch directory.")
    return scratch / name.removeprefix(S3)


def free(name: str) -> str:
    """An empty directory of this name, or the next free one: another database may have left files under the same number.

    A store is not asked, for whoever needs a name is about to write a row: there it gets an end that no other has.
    """
    if is_remote(name):
        return f"{name}-{uuid.uuid4().hex[:8]}"
    number, candidate = 1, name
    while not _is_free(candidate):
        number += 1
        candidate = f"{name}.{number}"
    return candidate


def _is_free(name: str) -> bool:
    Path(name).mkdir(parents=True, exist_ok=True)
    return not any(Path(name).iterdir())


# Files


def read(name: str) -> bytes:
    """A small file. Raises OSError for one of a directory, Gone or Away for one of the store."""
    if not is_remote(name):
        return Path(name).read_bytes()
    with _asking(name):
        data: bytes = _store().cat_file(name)
        return data


def read_note(checkpoint: str | Path) -> CheckpointNote:
    """The note beside a checkpoint. Raises BadInput, and Away."""
    if not is_remote(checkpoint):
        return rundir.read_note(Path(checkpoint))
    try:
        return CheckpointNote.model_validate_json(read(note_name(str(checkpoint))))
    except ValidationError as error:
        raise Gone(_("{name}: the note beside it is none ({n} errors).").format(name=checkpoint, n=error.error_count())) from None


class Notes:
    """Notes read before a transaction, for use within it: while a store does not answer nobody waits to write.

    Called with a checkpoint it gives its note, or raises what reading it has raised; Away for one in a store that was not named before.
    """

    def __init__(self, *checkpoints: str | None) -> None:
        self._found = {name: _outcome(name) for name in checkpoints if name and is_remote(name)}

    def __call__(self, checkpoint: str) -> CheckpointNote:
        if not is_remote(checkpoint):
            return read_note(checkpoint)
        found = self._found.get(checkpoint) or Away(_("{name}: it was not looked at yet; ask again.").format(name=checkpoint))
        if isinstance(found, Exception):
            raise found
        return found


def _outcome(checkpoint: str) -> CheckpointNote | BadInput | Away:
    try:
        return read_note(checkpoint)
    except (BadInput, Away) as error:
        return error


ReadNote = Callable[[str], CheckpointNote]


def note_name(checkpoint: str) -> str:
    return f"{checkpoint}.json"


def exists(name: str) -> bool:
    """Raises Away."""
    if not is_remote(name):
        return Path(name).is_file()
    try:
        _head(name)
    except Gone:
        return False
    return True


def delete(name: str) -> None:
    """Of the store; of what is not there nothing is said. Raises Away."""
    with _asking(name, missing=Away):
        _store().call_s3("delete_object", **_place(name))


def delete_checkpoint(name: str) -> None:
    """The file and its note. Raises Away."""
    delete(name)
    delete(note_name(name))


def delete_below(directory: str) -> None:
    """All objects of a directory of the store. Raises Away."""
    with _asking(directory, missing=Away):
        _store().invalidate_cache()
        if _store().exists(directory):
            _store().rm(directory, recursive=True)


def size_below(directory: str) -> int:
    """Bytes of all objects of a directory of the store. Raises Away."""
    with _asking(directory, missing=Away):
        _store().invalidate_cache()
        return int(sum(_store().du(directory, total=False).values()))


def upload(path: Path, name: str, sha256: str | None = None, tell: Tell = lambda _size: None) -> None:
    """Put a file that nobody writes to any more into the store, whole or not at all: S3 shows an object when its last part is there.

    Each part travels with a checksum; afterwards the store is asked for size and sha256. What it has already is not sent again.
    Raises Gone for a file of other contents, and Away.
    """
    digest, size = rundir.sha256(path), path.stat().st_size
    if sha256 not in (None, digest):
        raise Gone(_("{path}: damaged on this host: its checksum is not the one that its note says.").format(path=path))
    if holds(name, digest, size):
        return
    with _asking(name, missing=Away):
        _store().put_file(str(path), name, callback=_callback(tell), Metadata={SHA256: digest}, chunksize=PART_BYTES, max_concurrency=AT_ONCE)
    if not holds(name, digest, size):
        raise Away(_("{name}: the store holds something else than what was uploaded.").format(name=name))


def copy(source: str, target: str, sha256: str) -> bool:
    """Let the store give an object a second name. False if the first is not there with these contents. Raises Away."""
    if not holds(source, sha256):
        return False
    with _asking(source):
        _store().cp_file(source, target, Metadata={SHA256: sha256})
    return holds(target, sha256)


def holds(name: str, sha256: str, size: int | None = None) -> bool:
    """Whether the store has the file with these contents. Raises Away."""
    try:
        there = _head(name)
    except Gone:
        return False
    return bool(there["Metadata"].get(SHA256) == sha256 and size in (None, there["ContentLength"]))


def fetch(name: str, scratch: Path | None, sha256: str | None = None, tell: Tell = lambda _size: None) -> Path:
    """The file on this host, whole and with these contents; whatever the store says they are if not given. Downloads what is not here yet.

    Raises Gone for an object that is missing or other than it should be, and Away.
    """
    path = local(name, scratch)
    if not is_remote(name):
        return path
    if path.is_file() and sha256 in (None, rundir.sha256(path)):
        return path
    wanted = sha256 or str(_head(name)["Metadata"].get(SHA256))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with _asking(name):
            _store().get_file(name, str(part), callback=_callback(tell), chunksize=PART_BYTES, max_concurrency=AT_ONCE)
        if (found := rundir.sha256(part)) != wanted:
            raise Gone(_("{name}: damaged in the store: its checksum is {found} instead of {wanted}.").format(name=name, found=found, wanted=wanted))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


# The store


@cache
def _store() -> Any:
    """One client for the process; its connections are shared by all threads."""
    import s3fs  # half a second, and only who has set s3:// needs it installed

    class Store(s3fs.S3FileSystem):  # type: ignore[misc]
        retries = TRIES

    tries = {"max_attempts": TRIES, "mode": "standard"}
    return Store(use_listings_cache=False, skip_instance_cache=True, config_kwargs={"connect_timeout": 5, "read_timeout": 60, "retries": tries})


@contextmanager
def _asking(name: str, missing: type[Gone | Away] = Gone) -> Iterator[None]:
    """What the store's library raises, in two kinds. Raises Away, and `missing` for what is not there: when writing, that is the bucket."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.exceptions import ClientError as Refusal

    try:
        yield
    except FileNotFoundError:
        raise missing(_("{name}: the store has no such file or bucket.").format(name=name)) from None
    except (OSError, BotoCoreError, Refusal, ClientError) as error:
        raise Away(_("{name}: the store does not answer: {error}").format(name=name, error=error)) from error


def _head(name: str) -> dict[str, Any]:
    with _asking(name):
        found: dict[str, Any] = _store().call_s3("head_object", **_place(name))
        return found


def _place(name: str) -> dict[str, str]:
    bucket, _slash, key = name.removeprefix(S3).partition("/")
    return {"Bucket": bucket, "Key": key}


def _callback(tell: Tell) -> Any:
    from fsspec.callbacks import Callback

    class Telling(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            tell(inc)

    return Telling()
