"""`panollava backup`: one file with all that is known of the runs, while they run.

The database is copied first, as of one moment; the files that trainers append to are copied after it, so they hold at least what the rows
say was taken in of them. What they hold beyond that is taken in again by whoever recovers the job.
"""

import io
import os
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from typing import IO

from sqlalchemy import URL, make_url
from sqlmodel import select

from app import artifacts, db
from app.errors import Conflict, Invalid
from app.housekeeping.archive import ARTIFACTS, DATABASE, MANIFEST, Entry, Hashing, Heard, Manifest
from app.i18n import _
from app.models import Run
from app.settings import Settings
from panollava import __version__
from panollava.data.fingerprint import DATA_FILE
from panollava.events import EVENTS_FILE
from panollava.metrics.report import GROWING_FILE, METRICS_FILE, PREDICTIONS_FILE, SETTINGS_FILE

SMALL = {
    "config.json", "job.json", EVENTS_FILE, "output.log", "metrics.csv", "wandb.json", DATA_FILE,
    METRICS_FILE, PREDICTIONS_FILE, GROWING_FILE, SETTINGS_FILE,
}  # fmt: skip
"""All that is read again: by pages, by an attempt that goes on, and by an evaluation that goes on with the answers it has."""
NOTES = (".ckpt.json", ".safetensors.json")
WEIGHTS = (".ckpt", ".safetensors")
SKIPPED = {"cache", "model", "tensorboard"}
"""Directories: what can be made again, and models that were exported."""


def backup(settings: Settings, file: Path, *, with_checkpoints: bool = False, heard: Heard = lambda what, done, total: None) -> Manifest:
    """Write the backup; nobody sees it under its name before it is whole. Raises Invalid and Conflict for a database that cannot be copied."""
    part = file.with_name(file.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".panollava-backup-") as scratch:
        copy = Path(scratch, DATABASE)
        heard(_("database"), 0, 0)
        copy_database(settings.database_url, copy)
        files = list(_files(settings.artifacts, with_checkpoints)) if isinstance(settings.artifacts, Path) else []
        # It holds hashes of tokens: nobody else's to read.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            manifest = _write(output, settings, copy, files, with_checkpoints=with_checkpoints, heard=heard)
            output.flush()
            os.fsync(output.fileno())
    part.replace(file)
    return manifest


def _write(output: IO[bytes], settings: Settings, copy: Path, files: list[Path], *, with_checkpoints: bool, heard: Heard) -> Manifest:
    with tarfile.open(fileobj=output, mode="w:gz", compresslevel=3, format=tarfile.PAX_FORMAT) as tar:
        packing = _Packing(tar, heard, total=sum(_size(path) for path in [copy, *files]))
        packing.add(copy, DATABASE)
        for path in files:
            packing.add(path, f"{ARTIFACTS}/{path.relative_to(settings.artifacts).as_posix()}")
        manifest = Manifest(
            version=__version__, database="sqlite" if settings.database_url.startswith("sqlite") else "postgresql", created_at=datetime.now(UTC),
            artifacts=str(settings.artifacts), with_checkpoints=with_checkpoints, files=packing.entries, left_out=_elsewhere(settings),
        )  # fmt: skip
        data = manifest.model_dump_json(indent=1).encode()
        told = tarfile.TarInfo(MANIFEST)
        told.size = len(data)
        tar.addfile(told, io.BytesIO(data))
    return manifest


@dataclass
class _Packing:
    """An archive that grows."""

    tar: tarfile.TarFile
    heard: Heard
    total: int
    done: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, path: Path, name: str) -> None:
        """As much of a file as it holds at this moment; nothing of one that was removed meanwhile."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            told = self.tar.gettarinfo(arcname=name, fileobj=file)
            told.uid = told.gid = 0
            told.uname = told.gname = ""
            reader = Hashing(file, lambda size: self._tell(path.name, size))
            self.tar.addfile(told, reader if told.isreg() else None)
            target = self.entries.get(told.linkname) if told.islnk() else None
            self.entries[name] = target or Entry(size=told.size, sha256=reader.sha256)

    def _tell(self, name: str, size: int) -> None:
        self.done += size
        self.heard(name, self.done, self.total)


def _files(artifacts: Path, with_checkpoints: bool) -> Iterator[Path]:
    wanted = (*NOTES, *WEIGHTS) if with_checkpoints else NOTES
    for directory, names, files in os.walk(artifacts):
        names[:] = sorted(set(names) - SKIPPED)
        yield from (Path(directory, name) for name in sorted(files) if name in SMALL or name.endswith(wanted))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _elsewhere(settings: Settings) -> list[str]:
    """Where runs lie whose files are not among the artifacts of this machine: a store keeps its own."""
    engine = db.engine(settings.database_url)
    with db.session_factory(engine, read_only=True)() as session:
        directories = session.exec(select(Run.directory).distinct()).all()
    engine.dispose()
    return sorted(each for each in directories if artifacts.is_remote(each) or not Path(each).is_relative_to(settings.artifacts))


# Databases


def copy_database(url: str, target: Path) -> None:
    """As of one moment, while others write."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _copy_sqlite(Path(parsed.database or ""), target)
    else:
        run_postgres(parsed, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(target))


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise Invalid(_("{path}: there is no database to back up. PANOLLAVA_HOME or PANOLLAVA_DATABASE_URL names another one.").format(path=source))
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))


def run_postgres(url: URL, program: str, *arguments: str) -> None:
    """One of PostgreSQL's own programs. The password goes by the environment: arguments can be read by every user. Raises Invalid, Conflict."""
    if which(program) is None:
        text = _("{program} is not on PATH. Install PostgreSQL's client programs of the server's version or a later one, or run this where they are.")
        raise Invalid(text.format(program=program))
    where = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    done = subprocess.run([program, *arguments, f"--dbname={where}"], env=os.environ | password, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Conflict(_("{program} has failed: {error}").format(program=program, error=done.stderr.strip()))
