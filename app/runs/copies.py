"""New runs made of a run there is: the same once more, or later stages from one of its checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, select

from app import artifacts
from app.artifacts import ReadNote
from app.checkpoints import service as checkpoints
from app.errors import Conflict, Invalid, NotFound
from app.i18n import _
from app.launch import starts
from app.launch.preview import nest
from app.models import Checkpoint, Run, StageRun
from app.requests import digest, requested
from app.runs import service as runs
from app.settings import Settings
from panollava.config import merge, parse
from panollava.stages import Stage


def clone(
    session: Session, run: Run, changes: Mapping[str, Any], settings: Settings, actor: str, priority: int = 0, request_key: str | None = None,
    read_note: ReadNote = artifacts.read_note,
) -> Run:  # fmt: skip
    """What a run was asked for, with these changes, under a free name of its own. Raises as `runs.create` does."""
    asked = digest("clone", run.id, changes, priority)
    if request_key and (before := requested(session, Run, request_key, asked)):
        return before
    return _create(session, run, changes, settings, actor, priority, request_key, asked, read_note)


def fork(
    session: Session, run: Run, changes: Mapping[str, Any], settings: Settings, actor: str, priority: int = 0, request_key: str | None = None,
    checkpoint_id: int | None = None, stages: Sequence[Stage] | None = None, of: Stage | None = None, read_note: ReadNote = artifacts.read_note,
) -> Run:  # fmt: skip
    """A run that starts from the weights of a checkpoint of this one: its best of stage `of`, or of the furthest stage, unless another is named.

    It trains the stages behind the checkpoint's, unless others are asked for. Raises Invalid for stages that it cannot start, NotFound for
    a checkpoint of another run, and as `runs.create` does.
    """
    asked = digest("fork", run.id, changes, priority, checkpoint_id, stages, *([of] if of else []))
    if request_key and (before := requested(session, Run, request_key, asked)):
        return before
    _check_unsettled(changes, _("a fork's stages and checkpoint are named beside its config"))
    runs.hold(session, run)
    start = _start(session, run, checkpoint_id, of)
    from_ = session.get_one(StageRun, start.stage_id).stage
    later = [stage for stage in Stage if stage.number > from_.number]
    wanted = list(stages or later)
    if not wanted:
        text = _("stages: {stage} is the last one; name it to train it once more from checkpoint {id}.")
        raise Invalid(text.format(stage=from_, id=start.id))
    return _create(session, run, {**changes, "stage": wanted, "init_from": start.path}, settings, actor, priority, request_key, asked, read_note)


def start_of(session: Session, run: Run, checkpoint_id: int | None, of: Stage | None = None) -> str | None:
    """Where a fork would start, for its note to be read before; None where `fork` refuses it."""
    try:
        return _start(session, run, checkpoint_id, of).path
    except NotFound:
        return None


def clone_stage(
    session: Session, run: Run, stage: Stage, changes: Mapping[str, Any], settings: Settings, actor: str, priority: int = 0,
    request_key: str | None = None, read_note: ReadNote = artifacts.read_note,
) -> Run:  # fmt: skip
    """A run that trains one stage of this one once more, alone, from the weights that it began with.

    Raises Conflict for a stage that has been given none yet, NotFound for one that the run has not, and as `runs.create` does.
    """
    asked = digest("clone", run.id, changes, priority, stage)
    if request_key and (before := requested(session, Run, request_key, asked)):
        return before
    _check_unsettled(changes, _("the clone of one stage has its stage, and the weights that this one began with"))
    runs.hold(session, run)
    row = runs.stage_of(runs.state(session, run), stage).row
    if row.init_checkpoint is None and row.position > 0:
        raise Conflict(_("Stage {stage} of run {id} has not begun: no weights have been handed over to it yet.").format(stage=stage, id=run.id))
    changes = {**changes, "stage": [stage], "init_from": row.init_checkpoint}
    return _create(session, run, changes, settings, actor, priority, request_key, asked, read_note)


def _check_unsettled(changes: Mapping[str, Any], why: str) -> None:
    if settled := [field for field in ("stage", "init_from") if field in changes]:
        raise Invalid(_("config.{field}: {why}.").format(field=settled[0], why=why))


def _start(session: Session, run: Run, checkpoint_id: int | None, of: Stage | None) -> Checkpoint:
    if checkpoint_id is not None:
        return _named(session, run, checkpoint_id, of)
    best = select(Checkpoint).join(StageRun, col(StageRun.best_checkpoint_id) == Checkpoint.id).where(StageRun.run_id == run.id)
    if of:
        best = best.where(StageRun.stage == runs.stage_of(runs.state(session, run), of).stage)
    if found := session.exec(best.order_by(col(StageRun.position).desc())).first():
        return found
    if of:
        raise NotFound(_("Stage {stage} of run {id} has no best checkpoint yet; name another one.").format(stage=of, id=run.id))
    raise NotFound(_("No stage of run {id} has a best checkpoint yet; name another one.").format(id=run.id))


def _named(session: Session, run: Run, checkpoint_id: int, of: Stage | None) -> Checkpoint:
    named = checkpoints.get(session, checkpoint_id)
    if named.run_id != run.id:
        raise NotFound(_("Checkpoint {id} is of run {theirs}, not of run {run}.").format(id=named.id, theirs=named.run_id, run=run.id))
    if of and (theirs := session.get_one(StageRun, named.stage_id).stage) is not of:
        raise NotFound(_("Checkpoint {id} is of stage {theirs}, not of stage {stage}.").format(id=named.id, theirs=theirs, stage=of))
    return named


def _create(
    session: Session, run: Run, changes: Mapping[str, Any], settings: Settings, actor: str, priority: int, request_key: str | None, asked: str,
    read_note: ReadNote,
) -> Run:  # fmt: skip
    config = parse(merge(nest(starts.asked(session, run)), changes))
    return runs.create(session, config, settings, actor, priority=priority, request_key=request_key, asked=asked, read_note=read_note)
