"""What a checkpoint is kept for: as the best or the last of its stage, as the start of another, or because it was evaluated. Reads only.

One file may have several rows, since best.ckpt and last.ckpt are second names; what holds for one name holds for the file.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlmodel import Session, col, func, select

from app.checkpoints.lists import SECOND_NAMES
from app.i18n import _, ngettext
from app.models import Checkpoint, Evaluation, Run, StageRun
from panollava.stages import Stage

File = tuple[int, int, str]
"""Stage id, step and checksum: what all names of one file share."""


@dataclass(frozen=True)
class Reason:
    """Why a checkpoint is kept, and where that can be seen."""

    words: str
    url: str | None = None


@dataclass(frozen=True)
class Listed:
    """A checkpoint as lists show it."""

    row: Checkpoint
    stage: Stage
    run: str
    reasons: list[Reason] = field(default_factory=list)

    @property
    def label(self) -> str:
        """`finetune@3000`"""
        return f"{self.stage}@{self.row.step}"

    @property
    def others(self) -> dict[str, float]:
        """Metrics beside val_loss."""
        return {name: value for name, value in self.row.metrics.items() if name != "val_loss"}


def describe(session: Session, rows: Sequence[Checkpoint]) -> list[Listed]:
    """In the order given. As many queries for fifty as for one."""
    stages = {stage.id: stage for stage in session.exec(select(StageRun).where(col(StageRun.id).in_({row.stage_id for row in rows})))}
    names = dict(session.exec(select(Run.id, Run.name).where(col(Run.id).in_({row.run_id for row in rows}))).all())
    files = names_of(session, rows)
    everything = [name for each in files.values() for name in each]
    special, heirs, evaluated = _special(session, everything, stages), _heirs(session, everything), _evaluated(session, everything)
    found = []
    for row in rows:
        twins = files[file_of(row)]
        reasons = [reason for of in (special, heirs, evaluated) for twin in twins for reason in of.get(twin.id, ())]
        found.append(Listed(row, stages[row.stage_id].stage, names[row.run_id], list(dict.fromkeys(reasons))))
    return found


def file_of(row: Checkpoint) -> File:
    return row.stage_id, row.step, row.sha256


def names_of(session: Session, rows: Sequence[Checkpoint]) -> dict[File, list[Checkpoint]]:
    """All rows of the files that these rows are of, the files' first names first."""
    wanted = {file_of(row) for row in rows}
    found: dict[File, list[Checkpoint]] = defaultdict(list)
    query = select(Checkpoint).where(
        col(Checkpoint.stage_id).in_({row.stage_id for row in rows}), col(Checkpoint.step).in_({row.step for row in rows})
    )
    for each in session.exec(query.order_by(col(Checkpoint.kind).in_(SECOND_NAMES), col(Checkpoint.id))):
        if file_of(each) in wanted:
            found[file_of(each)].append(each)
    return found


def lasting(session: Session, checkpoint: Checkpoint) -> Checkpoint:
    """Its row under the name that stays longest; where there is a store, of the names that this has."""
    return min(names_of(session, [checkpoint])[file_of(checkpoint)], key=lambda name: (name.stored_at is None, name.removed_at is not None))


def best(rows: Iterable[Checkpoint], stages: Iterable[StageRun]) -> set[int]:
    """What each stage has named its best, or calls so while it trains. By the rows' ids."""
    named = {stage.id: stage.best_checkpoint_id for stage in stages if stage.best_checkpoint_id}
    return set(named.values()) | newest([row for row in rows if row.stage_id not in named], "best")


def newest(rows: Iterable[Checkpoint], kind: str) -> set[int]:
    """The rows that bear this name in the newest attempt of their stage to have written one."""
    found: dict[int, Checkpoint] = {}
    for row in sorted(rows, key=lambda row: (row.attempt, row.id)):
        if row.kind == kind:
            found[row.stage_id] = row
    return {row.id for row in found.values()}


def _special(session: Session, rows: Sequence[Checkpoint], stages: Mapping[int, StageRun]) -> dict[int, list[Reason]]:
    """The best and the last of a stage, and what a person wants kept."""
    second = session.exec(select(Checkpoint).where(col(Checkpoint.stage_id).in_(stages), col(Checkpoint.kind).in_(SECOND_NAMES))).all()
    pinned = {row.id for row in rows if row.pinned}
    of = {_("best"): best(second, stages.values()), _("last"): newest(second, "last"), _("pinned"): pinned}
    return {row.id: [Reason(words) for words, ids in of.items() if row.id in ids] for row in rows}


def _heirs(session: Session, rows: Sequence[Checkpoint]) -> dict[int, list[Reason]]:
    """Stages that started from them."""
    found: dict[int, list[Reason]] = defaultdict(list)
    of = {row.path: row for row in rows}
    for stage in session.exec(select(StageRun).where(col(StageRun.init_checkpoint).in_(of)).order_by(col(StageRun.id))):
        row = of[stage.init_checkpoint or ""]
        text = _("handed to {stage}") if stage.run_id == row.run_id else _("handed to {stage} of run {run}")
        found[row.id].append(Reason(text.format(run=stage.run_id, stage=stage.stage), f"/runs/{stage.run_id}"))
    return found


def _evaluated(session: Session, rows: Sequence[Checkpoint]) -> dict[int, list[Reason]]:
    query = select(Evaluation.checkpoint_id, func.count(), func.max(Evaluation.id)).where(col(Evaluation.checkpoint_id).in_([row.id for row in rows]))
    found: dict[int, list[Reason]] = {}
    for id_, count, newest_ in session.exec(query.group_by(col(Evaluation.checkpoint_id))):
        text = ngettext("evaluated", "evaluated {n} times", count).format(n=count)
        found[id_ or 0] = [Reason(text, f"/evals/{newest_}")]
    return found
