"""`panollava restore`: a backup becomes a house again, on this machine or another, in a place where there is none yet.

Everything is unpacked beside its place and checked before anything is put there. Rows hold absolute paths, which are made to point to
where the artifacts lie now.
"""

import hashlib
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, func, inspect, literal, make_url
from sqlmodel import Session, SQLModel, col, select, update

from app import artifacts, db, discards
from app.errors import Conflict, Invalid
from app.housekeeping.archive import ARTIFACTS, DATABASE, MANIFEST, PIECE, Heard, Manifest, check_name, read_manifest
from app.housekeeping.backup import run_postgres
from app.i18n import _
from app.models import ENDED, Attempt, Checkpoint, Evaluation, Export, Job, Run, StageRun, Worker
from app.settings import Settings

PATHS: dict[type[SQLModel], tuple[str, ...]] = {
    Run: ("directory", "imported_from"), StageRun: ("init_checkpoint",), Job: ("directory", "resume_from"), Attempt: ("directory",),
    Checkpoint: ("path",), Evaluation: ("directory",), Export: ("path", "directory"),
}  # fmt: skip
"""Columns that hold a path, by table."""
ELSEWHERE = "restored"
"""Boot of no machine."""


@dataclass(frozen=True)
class Restored:
    """What there is now, and what there is not."""

    manifest: Manifest
    files: int
    missing: int
    """Checkpoints that have a row and no file here; their pages say so."""
    open_jobs: int
    """Jobs that waited or were at work: workers of this house take them."""


def restore(settings: Settings, file: Path, heard: Heard = lambda what, done, total: None) -> Restored:
    """Raises Conflict where there is something already, Invalid for a file that is no whole backup. What lies in a store is there still."""
    _check_empty(settings)
    place = settings.artifacts if isinstance(settings.artifacts, Path) else settings.home / "artifacts"
    staging = place.with_name(place.name + ".restore")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        manifest = _unpack(file, staging, heard)
        _check_kind(manifest, settings)
        if isinstance(settings.artifacts, Path):
            (staging / ARTIFACTS).mkdir(exist_ok=True)
            if settings.artifacts.is_dir():
                settings.artifacts.rmdir()
            os.replace(staging / ARTIFACTS, settings.artifacts)
        elif manifest.artifacts != settings.artifacts:
            text = _("The backup's artifacts lie in {theirs}, and here they go to {ours}; restore with the same PANOLLAVA_ARTIFACTS.")
            raise Conflict(text.format(theirs=manifest.artifacts, ours=settings.artifacts))
        with _database(settings, staging / DATABASE) as url:
            return _settle(url, settings, manifest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_empty(settings: Settings) -> None:
    if isinstance(settings.artifacts, Path) and settings.artifacts.is_dir() and any(settings.artifacts.iterdir()):
        raise Conflict(_("{path} is not empty; a backup is restored where there is nothing. Name a new place with PANOLLAVA_HOME or "
                         "PANOLLAVA_ARTIFACTS.").format(path=settings.artifacts))  # fmt: skip
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return
    engine = create_engine(settings.database_url)
    tables = inspect(engine).get_table_names()
    engine.dispose()
    if tables:
        shown = url.render_as_string(hide_password=True)
        raise Conflict(_("{url} has tables already; a backup is restored into an empty database. Name another one with PANOLLAVA_HOME or "
                         "PANOLLAVA_DATABASE_URL.").format(url=shown))  # fmt: skip


# Unpacking


def _unpack(file: Path, staging: Path, heard: Heard) -> Manifest:
    """All of it, checked against its manifest, which comes last. Raises Invalid."""
    sums: dict[str, str] = {}
    manifest: Manifest | None = None
    try:
        size = file.stat().st_size
        with file.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|gz") as tar:
            for member in tar:
                name = check_name(member)
                if name == MANIFEST:
                    manifest = read_manifest(_content(tar, member).read())
                else:
                    sums[name] = _extract(tar, member, staging)
                heard(name, raw.tell(), size)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise Invalid(_("{file} cannot be read as a backup: {error}").format(file=file, error=error)) from None
    if manifest is None:
        raise Invalid(_("{file} is no whole backup: its manifest is missing.").format(file=file))
    _check_sums(file, manifest, sums)
    return manifest


def _check_sums(file: Path, manifest: Manifest, sums: dict[str, str]) -> None:
    wanted = {name: entry.sha256 for name, entry in manifest.files.items()}
    if wrong := sorted(name for name in wanted.keys() | sums.keys() if wanted.get(name) != sums.get(name)):
        text = _("{file} is damaged: {name} is not what its manifest says ({n} files in all).")
        raise Invalid(text.format(file=file, name=wrong[0], n=len(wrong)))


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, staging: Path) -> str:
    """The file's checksum."""
    target = staging / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.islnk():
        first = tarfile.TarInfo(member.linkname)
        os.link(staging / check_name(first), target)
        with target.open("rb") as linked:
            return hashlib.file_digest(linked, "sha256").hexdigest()
    digest, content = hashlib.sha256(), _content(tar, member)
    with target.open("wb") as output:
        while piece := content.read(PIECE):
            digest.update(piece)
            output.write(piece)
    os.utime(target, (member.mtime, member.mtime))
    return digest.hexdigest()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    content = tar.extractfile(member)
    assert content is not None  # only files come here
    return content


# The database


def _check_kind(manifest: Manifest, settings: Settings) -> None:
    ours = make_url(settings.database_url).get_backend_name()
    if ours != manifest.database:
        text = _("The backup is of {theirs}, and PANOLLAVA_DATABASE_URL names {ours}. Restore it into {theirs}.")
        raise Invalid(text.format(theirs=manifest.database, ours=ours))


@contextmanager
def _database(settings: Settings, copy: Path) -> Iterator[str]:
    """The copied database, to be put right; an SQLite file gets its name afterwards."""
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        run_postgres(url, "pg_restore", "--no-owner", "--no-privileges", "--single-transaction", str(copy))
        yield settings.database_url
        return
    yield f"sqlite:///{copy}"
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all of it is in the one file
    target = Path(url.database or "")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(copy, part := target.with_name(target.name + ".part"))
    part.replace(target)


def _settle(url: str, settings: Settings, manifest: Manifest) -> Restored:
    """Tables of this version, paths of this place."""
    db.migrate(url)
    engine = db.engine(url)
    try:
        with db.session_factory(engine).begin() as session:
            _move(session, manifest.artifacts, str(settings.artifacts))
            _forget_processes(session)
            discards.forget(session)
            missing = sum(not artifacts.is_remote(path) and not Path(path).is_file() for path in session.exec(select(Checkpoint.path)))
            open_jobs = session.exec(select(func.count()).select_from(Job).where(col(Job.status).not_in(ENDED))).one()
    finally:
        engine.dispose()
    return Restored(manifest, len(manifest.files), missing, open_jobs)


def _forget_processes(session: Session) -> None:
    """The old house may live on, on this very machine: its workers and trainers are not this house's to adopt or to kill."""
    unseen = {"pid": None, "pid_started": None, "boot_id": ELSEWHERE}
    session.exec(update(Attempt).where(col(Attempt.boot_id).is_not(None)).values(**unseen))
    session.exec(update(Worker).where(col(Worker.stopped_at).is_(None)).values(stopped_at=db.now(session), boot_id=ELSEWHERE))


def _move(session: Session, old: str, new: str) -> None:
    """Every path below the old artifacts lies below the new ones."""
    if old == new:
        return
    for table, names in PATHS.items():
        for column in (getattr(table, name) for name in names):
            here = (func.substr(column, 1, len(old) + 1) == f"{old}/") | (column == old)
            moved = literal(new).concat(func.substr(column, len(old) + 1))
            session.exec(update(table).where(here).values({column: moved}).execution_options(synchronize_session=False))
    asked: list[Run | Evaluation] = [*session.exec(select(Run)), *session.exec(select(Evaluation))]
    for row in asked:
        row.config = _moved(row.config, old, new)
        session.add(row)


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value[len(old) :] if value == old or value.startswith(f"{old}/") else value
    if isinstance(value, dict):
        return {key: _moved(each, old, new) for key, each in value.items()}
    return [_moved(each, old, new) for each in value] if isinstance(value, list) else value
