"""A run's checkpoint files as a person counts them: one file under all its names. The rows themselves are `app/checkpoints`' business."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.checkpoints import kept
from app.i18n import _
from app.models import Checkpoint, StageRun
from panollava.stages import Stage

ORDER = ("epoch", "step", "final", "last", "best")
"""Which of a file's names stands for it: last.ckpt and best.ckpt are second names, and come to mean another file."""


@dataclass(frozen=True)
class Saved:
    """One file. `app/checkpoints/kept.py` knows all that it is kept for."""

    row: Checkpoint
    stage: Stage
    is_best: bool
    is_last: bool

    @property
    def label(self) -> str:
        """`finetune@3000`"""
        return f"{self.stage}@{self.row.step}"

    @property
    def val_loss(self) -> float | None:
        return self.row.val_loss

    @property
    def written(self) -> str:
        """When it was, in words."""
        return WRITTEN.get(self.row.kind, self.row.kind)


WRITTEN = {
    "epoch": _("end of an epoch"),
    "step": _("saved on the way"),
    "final": _("weights of the finished stage"),
    "best": _("was the best once"),
    "last": _("was the last once"),
}


def gather(rows: Sequence[Checkpoint], stages: Sequence[StageRun]) -> list[Saved]:
    """Later stages first, within a stage the furthest first; rows of one stage, step and content are one file."""
    files: dict[tuple[int, int, str], list[Checkpoint]] = defaultdict(list)
    for row in rows:
        files[row.stage_id, row.step, row.sha256].append(row)
    best, last = kept.best(rows, stages), kept.newest(rows, "last")
    place = {stage.id: stage for stage in stages}
    found = [_saved(names, place[names[0].stage_id].stage, best, last) for names in files.values()]
    return sorted(found, key=lambda each: (place[each.row.stage_id].position, each.row.step, each.row.id), reverse=True)


def _saved(names: Sequence[Checkpoint], stage: Stage, best: set[int], last: set[int]) -> Saved:
    ids = {each.id for each in names}
    return Saved(min(names, key=_precedence), stage, bool(ids & best), bool(ids & last))


def _precedence(row: Checkpoint) -> tuple[int, int]:
    return ORDER.index(row.kind) if row.kind in ORDER else len(ORDER), -row.attempt
