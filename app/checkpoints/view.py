"""What the pages of one checkpoint and of several side by side show: the row, the note beside the file, where it comes from and what came of it.

Reads rows and notes; a checkpoint whose file is gone keeps what its row and its run say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app import artifacts
from app.checkpoints import kept
from app.checkpoints import service as checkpoints
from app.checkpoints.kept import Listed
from app.datasets.tables import paths_of
from app.errors import Invalid
from app.i18n import _
from app.listing import numbers
from app.models import Checkpoint, Evaluation, Run, StageRun
from panollava import rundir
from panollava.errors import BadInput
from panollava.rundir import CheckpointNote
from panollava.stages import RECIPES

LETTERS = "ABCDEFGH"
MOST = len(LETTERS)


@dataclass(frozen=True)
class Facts:
    """One checkpoint. `gone` says why its file cannot be used."""

    listed: Listed
    run: Run
    names: Sequence[Checkpoint]
    """All rows of the file, itself among them."""
    note: CheckpointNote | None
    gone: str | None

    @property
    def row(self) -> Checkpoint:
        return self.listed.row

    @property
    def label(self) -> str:
        return self.listed.label

    @property
    def config(self) -> dict[str, Any]:
        """What it was trained with; what its run asked for, where the note is gone."""
        return self.note.config if self.note else self.run.config

    @property
    def architecture(self) -> dict[str, Any]:
        return self.note.architecture.model_dump() if self.note else {}

    @cached_property
    def parameters(self) -> int:
        """Numbers in all of its tensors."""
        return sum(math.prod(shape) for shape in self.note.tensors.values()) if self.note else 0


@dataclass(frozen=True)
class Lineage:
    """Where a checkpoint comes from and what came of it."""

    start: Checkpoint | None
    start_path: str | None
    """Of the checkpoint that its stage started from, also when that is none of ours; None: from the models themselves."""
    heirs: Sequence[tuple[StageRun, str]]
    """Stages that started from it, each with its run's name."""


def facts(session: Session, ids: Sequence[int]) -> list[Facts]:
    """In the order given. Raises NotFound."""
    rows = [checkpoints.get(session, id_) for id_ in ids]
    runs = {run.id: run for run in session.exec(select(Run).where(col(Run.id).in_({row.run_id for row in rows})))}
    files = kept.names_of(session, rows)
    return [
        Facts(listed, runs[listed.row.run_id], files[kept.file_of(listed.row)], *_note(listed.row)) for listed in kept.describe(session, rows)
    ]  # fmt: skip


def chosen(session: Session, ids: Sequence[str]) -> list[Facts]:
    """Those to be compared, each once. `ids` are as for `numbers`. Raises Invalid also for too few and too many."""
    wanted = numbers(ids)
    if len(wanted) < 2:
        raise Invalid(_("ids: pick at least two checkpoints to compare."))
    if len(wanted) > MOST:
        raise Invalid(_("ids: {n} checkpoints; at most {most} fit side by side.").format(n=len(wanted), most=MOST))
    return facts(session, wanted)


def why_not_comparable(one: Facts, base: Facts) -> str | None:
    """Why the metrics of two checkpoints cannot be held against each other; None if they can."""
    if _loss(one) != _loss(base):
        return _("It was trained on another loss than the base.")
    if paths_of(one.config, "csv_val") != paths_of(base.config, "csv_val"):
        return _("It was validated on another table than the base.")
    return None


def _loss(of: Facts) -> str:
    """What val_loss is; one that is added to a stage's own is not in it."""
    own = RECIPES[of.listed.stage].loss
    return str(of.config.get("overlap_loss", "vicreg")) if own == "overlap" else own


def lineage(session: Session, of: Facts) -> Lineage:
    stage = session.get_one(StageRun, of.row.stage_id)
    start = checkpoints.at(session, stage.init_checkpoint) if stage.init_checkpoint else None
    started = select(StageRun, Run.name).join(Run, col(Run.id) == StageRun.run_id)
    heirs = session.exec(started.where(col(StageRun.init_checkpoint).in_([name.path for name in of.names])).order_by(col(StageRun.id))).all()
    return Lineage(start, stage.init_checkpoint, heirs)


def evaluations(session: Session, of: Sequence[Facts]) -> list[list[Evaluation]]:
    """Of each checkpoint, under whatever name it was evaluated; the newest first."""
    place = {name.id: index for index, each in enumerate(of) for name in each.names}
    found: list[list[Evaluation]] = [[] for _each in of]
    for evaluation in session.exec(select(Evaluation).where(col(Evaluation.checkpoint_id).in_(place)).order_by(col(Evaluation.id).desc())):
        found[place[evaluation.checkpoint_id or 0]].append(evaluation)
    return found


def side_by_side(found: Sequence[Sequence[Evaluation]]) -> dict[str, list[int]]:
    """Tables on which two or more checkpoints were evaluated, by the table's path: the newest evaluation of each of them."""
    newest: dict[str, list[int]] = {}
    for of_one in found:
        tables = {str(each.config.get("csv")): each.id for each in reversed(of_one) if each.metrics is not None}
        for table, id_ in tables.items():
            newest.setdefault(table, []).append(id_)
    return {table: ids for table, ids in newest.items() if len(ids) > 1}


def _note(row: Checkpoint) -> tuple[CheckpointNote | None, str | None]:
    """The note, and why the file cannot be used."""
    if artifacts.is_remote(row.path):
        return _stored_note(row)
    try:
        note, size = rundir.read_note(Path(row.path)), Path(row.path).stat().st_size
    except (BadInput, OSError) as error:
        return None, str(error)
    if size != note.size:
        return note, _("{path}: damaged: {size:,} bytes instead of {noted:,}.").format(path=row.path, size=size, noted=note.size)
    return note, None


def _stored_note(row: Checkpoint) -> tuple[CheckpointNote | None, str | None]:
    if row.stored_at is None:
        return None, _("{path}: not in the store yet; only the host that trains it has it.").format(path=row.path)
    try:
        return artifacts.read_note(row.path), None
    except (BadInput, artifacts.Away) as error:
        return None, str(error)
