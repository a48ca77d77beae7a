"""Delete a run: its rows, and the files of all that was made of it.

The files are moved into the trash inside the transaction, which takes a moment however many they are, and removed after it. Whoever is killed
in between leaves whole directories in the trash, and `sweep` decides by the rows: back they go if the run is still there, else they are gone.
"""

import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, delete, func, or_, select

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
    size: int
    """Bytes of all files, as they lie on the disk."""
    heirs: Sequence[Run]
    """Runs that started from its checkpoints."""


def contents(session: Session, run: Run, artifacts: Path) -> Contents:
    """Looks at every file."""
    checkpoints, evaluations, exports = (
        session.exec(select(func.count()).select_from(table).where(col(table.run_id) == run.id)).one() for table in (Checkpoint, Evaluation, Export)
    )
    return Contents(checkpoints, evaluations, exports, sum(map(_size, _directories(session, run, artifacts))), heirs(session, run))


def heirs(session: Session, run: Run) -> Sequence[Run]:
    """Runs that started from its checkpoints, oldest first."""
    paths = select(Checkpoint.path).where(Checkpoint.run_id == run.id)
    started = select(StageRun.run_id).where(col(StageRun.init_checkpoint).in_(paths))
    query = select(Run).where(Run.id != run.id, or_(Run.parent_id == run.id, col(Run.id).in_(started)))
    return session.exec(query.order_by(col(Run.id))).all()


def delete_run(session: Session, run: Run, artifacts: Path, *, force: bool = False) -> list[Path]:
    """Remove its rows, and move its files into the trash; call `empty` with what comes back once this is committed.

    Raises Conflict while something of it waits or is at work, and without `force` for one from whose checkpoints other runs started.
    """
    runs.hold(session, run)
    changes.refuse_while_open(session, run, _("deleted"))
    if not force and (others := heirs(session, run)):
        text = _("Run {id} gave the weights at the start of {runs}; their own checkpoints stay, but they could not begin again. Force it to delete.")
        raise Conflict(text.format(id=run.id, runs=", ".join(_("run {id}").format(id=each.id) for each in others)))
    directories = _directories(session, run, artifacts)
    session.exec(delete(Run).where(col(Run.id) == run.id))
    session.expunge(run)
    return [discard(each) for each in directories]


def _directories(session: Session, run: Run, artifacts: Path) -> list[Path]:
    """Of the run and of its evaluations, as far as they are there and ours: what was made elsewhere is not removed."""
    evaluated = session.exec(select(Job.directory).where(Job.run_id == run.id, col(Job.evaluation_id).is_not(None)))
    named = map(Path, [run.directory, *sorted(set(evaluated))])
    return [path for path in named if path != artifacts and path.is_relative_to(artifacts) and path.is_dir()]


def _size(directory: Path) -> int:
    """Files with several names are counted once."""
    found = {(stat.st_dev, stat.st_ino): stat.st_size for path in directory.rglob("*") if (stat := path.lstat()) and not path.is_dir()}
    return sum(found.values())


# Files


def discard(directory: Path) -> Path:
    """Move it into the trash beside it, at once and whole. The name there tells since when."""
    trash = directory.parent / TRASH
    trash.mkdir(exist_ok=True)
    return directory.rename(trash / f"{directory.name}~{int(time.time())}~{uuid.uuid4().hex[:8]}")


def empty(discarded: Iterable[Path]) -> None:
    """Remove what lies in the trash. What cannot be removed stays there, and is tried again when a server starts."""
    for path in discarded:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            log.info("%s: somebody else has removed it meanwhile.", path)
        except OSError as error:
            log.warning("%s stays in the trash: %s.", path, error)


def sweep(session: Session, artifacts: Path) -> list[Path]:
    """Settle what a process that was killed has left in the trash: put back what still has rows, and tell what can be emptied."""
    named = set(session.exec(select(Run.directory))) | set(session.exec(select(Job.directory)))
    gone = []
    for path in sorted([*artifacts.glob(f"{TRASH}/*~*~*"), *artifacts.glob(f"*/{TRASH}/*~*~*")]):
        name, since, _key = path.name.rsplit("~", 2)
        home = path.parent.parent / name
        if not since.isdecimal() or time.time() - int(since) < SETTLED_SECONDS:
            continue  # not ours, or not for us yet
        if str(home) in named and not home.exists():
            path.rename(home)
        else:
            gone.append(path)
    return gone
