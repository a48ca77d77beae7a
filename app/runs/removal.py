"""Delete a run: its rows, and the files of all that was made of it.

The files are moved into the trash inside the transaction, which takes a moment however many they are, and removed after it. Whoever is killed
in between leaves whole directories in the trash, and `sweep` decides by the rows: back they go if the run is still there, else they are gone.
Objects of a store have no trash: the transaction names them to be removed, and `discards.sweep` does it.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, delete, func, or_, select

from app import artifacts, discards
from app.checkpoints import service as checkpoints
from app.errors import Conflict
from app.i18n import _
from app.models import Checkpoint, Evaluation, Export, Job, Run, StageRun
from app.runs import changes
from app.runs import service as runs

log = logging.getLogger(__name__)
TRASH = "trash"
SETTLED_SECONDS = 600.0
"""Age from which on nobody is still deleting what lies in the trash."""


@dataclass(frozen=True)
class Contents:
    """What goes with a run."""

    checkpoints: int
    evaluations: int
    exports: int
    size: int | None
    """Bytes of all files, as they lie on the disk; None while the store does not say."""
    heirs: Sequence[Run]
    """Runs that started from its checkpoints."""


def contents(session: Session, run: Run, place: Path | str) -> Contents:
    """Looks at every file."""
    saved, evaluations, exports = (
        session.exec(select(func.count()).select_from(table).where(col(table.run_id) == run.id)).one() for table in (Checkpoint, Evaluation, Export)
    )
    try:
        size: int | None = sum(map(_size, _directories(session, run, place)))
    except artifacts.Away as error:
        log.warning("How much run %d has in the store is not known. %s", run.id, error)
        size = None
    return Contents(saved, evaluations, exports, size, heirs(session, run))


def heirs(session: Session, run: Run) -> Sequence[Run]:
    """Runs that started from its checkpoints, oldest first."""
    paths = select(Checkpoint.path).where(Checkpoint.run_id == run.id)
    started = select(StageRun.run_id).where(col(StageRun.init_checkpoint).in_(paths))
    query = select(Run).where(Run.id != run.id, or_(Run.parent_id == run.id, col(Run.id).in_(started)))
    return session.exec(query.order_by(col(Run.id))).all()


def delete_run(session: Session, run: Run, place: Path | str, *, force: bool = False) -> list[str]:
    """Remove its rows, and move its files into the trash; call `empty` with what comes back once this is committed, and `discards.sweep`.

    Raises Conflict while something of it waits or is at work, and without `force` for one from whose checkpoints other runs started.
    """
    runs.hold(session, run)
    checkpoints.locked(session, Checkpoint.run_id == run.id)  # who begins something with one of them has done so, or finds it gone
    changes.refuse_while_open(session, run, _("deleted"))
    if not force and (others := heirs(session, run)):
        text = _("Run {id} gave the weights at the start of {runs}; their own checkpoints stay, but they could not begin again. Force it to delete.")
        raise Conflict(text.format(id=run.id, runs=", ".join(_("run {id}").format(id=each.id) for each in others)))
    directories = _directories(session, run, place)
    for stored in filter(artifacts.is_remote, directories):
        discards.add(session, stored, run.id, is_directory=True)
    session.exec(delete(Run).where(col(Run.id) == run.id))
    session.expunge(run)
    return [discard(Path(each)) for each in directories if not artifacts.is_remote(each)]


def _directories(session: Session, run: Run, place: Path | str) -> list[str]:
    """Of the run and of its evaluations, as far as they are there and ours: what was made elsewhere is not removed."""
    evaluated = session.exec(select(Job.directory).where(Job.run_id == run.id, col(Job.evaluation_id).is_not(None)))
    return [name for name in (run.directory, *sorted(set(evaluated))) if _is_ours(name, place)]


def _is_ours(name: str, place: Path | str) -> bool:
    if artifacts.is_remote(name):
        return name != str(place) and artifacts.is_below(name, place)
    path = Path(name)
    return isinstance(place, Path) and path != place and path.is_relative_to(place) and path.is_dir()


def _size(directory: str) -> int:
    """Files with several names are counted once. Those of a run at work come and go meanwhile."""
    if artifacts.is_remote(directory):
        return artifacts.size_below(directory)
    found = {}
    for place, _directories, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                stat = Path(place, name).lstat()
                found[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(found.values())


# Files


def discard(path: Path) -> str:
    """Move it into the trash beside it, at once and whole. The name there tells since when."""
    trash = path.parent / TRASH
    trash.mkdir(exist_ok=True)
    return str(path.rename(trash / f"{path.name}~{int(time.time())}~{uuid.uuid4().hex[:8]}"))


def empty(discarded: Iterable[str]) -> None:
    """Remove what was discarded. What cannot be removed stays, and what is in the trash is tried again when a server starts."""
    for name in discarded:
        try:
            shutil.rmtree(name)
        except FileNotFoundError:
            log.info("%s: somebody else has removed it meanwhile.", name)
        except OSError as error:
            log.warning("%s stays: %s.", name, error)


def sweep(session: Session, place: Path | str) -> list[str]:
    """Settle what a process that was killed has left in the trash: put back what still has rows, and tell what can be emptied."""
    if not isinstance(place, Path):
        return []
    named = set(session.exec(select(Run.directory))) | set(session.exec(select(Job.directory)))
    gone = []
    for path in sorted([*place.glob(f"{TRASH}/*~*~*"), *place.glob(f"*/{TRASH}/*~*~*")]):
        name, since, _key = path.name.rsplit("~", 2)
        home = path.parent.parent / name
        if not since.isdecimal() or time.time() - int(since) < SETTLED_SECONDS:
            continue  # not ours, or not for us yet
        if str(home) in named and not home.exists():
            path.rename(home)
        else:
            gone.append(str(path))
    return gone
