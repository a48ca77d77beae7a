"""What a launch form begins with: a preset, a run to duplicate, a checkpoint to go on from; and the checkpoints it may offer. Reads only."""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, or_, select

from app import artifacts
from app.artifacts import Away
from app.checkpoints import service as checkpoints
from app.errors import AppError
from app.formats import number
from app.i18n import _
from app.models import Checkpoint, Run, StageRun
from app.runs import lighter, request
from app.runs import service as runs
from app.runs.request import OURS
from app.settings import Settings
from panollava import architecture, rundir
from panollava.config import RunConfig, flat, merge, validated
from panollava.errors import BadInput
from panollava.presets import STARTING_POINTS
from panollava.refusals import MODELS
from panollava.rundir import Architecture
from panollava.stages import Stage

DEFAULT, CONTINUE = "full", "continue"
OFFERED = 60
"""Most checkpoints in the form's list, the newest."""
KINDS = ("best", "final", "last", "epoch", "step")


@dataclass(frozen=True)
class Start:
    """What stands in the form at first. Marks tell what differs from it."""

    title: str
    description: str
    values: dict[str, Any]
    """Of every field, by dotted name."""
    preset: str | None = None
    run_id: int | None = None
    checkpoint_id: int | None = None

    @property
    def query(self) -> dict[str, Any]:
        """How an address names it."""
        named = {"preset": self.preset, "from": self.run_id, "checkpoint": self.checkpoint_id}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Offer:
    """A checkpoint in the list."""

    path: str
    label: str
    why_not: str
    """Why it cannot start this run; empty if it can."""


def choose(session: Session, preset: str | None = None, run_id: int | None = None, checkpoint_id: int | None = None) -> Start:
    """A checkpoint wins over a run, a run over a preset; the full chain if none is named. Raises NotFound, Invalid or BadInput."""
    if checkpoint_id is not None:
        return _from_checkpoint(session, checkpoints.get(session, checkpoint_id))
    if run_id is not None:
        return _from_run(session, runs.get(session, run_id))
    name = preset or DEFAULT
    config = validated(RunConfig, request.base(name))
    about = STARTING_POINTS[name]
    return Start(_(about.title), _(about.description), dict(flat(config.model_dump(mode="json"))), preset=name)


def _from_run(session: Session, run: Run) -> Start:
    description = _("What run {id} was asked for, under a name of its own.").format(id=run.id)
    if changed := lighter.told(session, run):
        description = f"{description} {_('With what it has needed since it ran out of memory ({changed}).').format(changed=changed)}"
    return Start(_("Duplicate of run {id}").format(id=run.id), description, asked(session, run), run_id=run.id)


def _from_checkpoint(session: Session, checkpoint: Checkpoint) -> Start:
    """The run's own settings, so that the models fit; the stage after the checkpoint's, or the last one again."""
    run, row = session.get_one(Run, checkpoint.run_id), session.get_one(StageRun, checkpoint.stage_id)
    following = list(Stage)[min(row.stage.number, len(Stage) - 1)]
    text = _("From {kind}, step {step} of stage {stage} in run {id}, with the settings of that run.")
    return Start(
        _("From checkpoint {id}").format(id=checkpoint.id),
        text.format(kind=checkpoint.kind, step=checkpoint.step, stage=row.stage, id=run.id),
        asked(session, run) | {"stage": [following], "init_from": checkpoint.path},
        checkpoint_id=checkpoint.id,
    )


def asked(session: Session, run: Run) -> dict[str, Any]:
    """A run's config but for what the manager set in it, with what it needed to fit into memory. Raises BadInput for a setting we do not know."""
    own = {name: value for name, value in lighter.of_run(session, run).items() if name not in OURS}
    config = validated(RunConfig, merge(request.base(), own | {"name": free_name(session, run.name)}))
    return dict(flat(config.model_dump(mode="json")))


def free_name(session: Session, name: str) -> str:
    """`vlm` -> `vlm-2`, or the next number that no run has."""
    stem = re.sub(r"-\d{1,6}$", "", name)[:57]
    taken = set(session.exec(select(Run.name).where(col(Run.name).startswith(stem, autoescape=True))))
    return next(free for n in count(2) if (free := f"{stem}-{n}") not in taken)


# Checkpoints on offer


def offers(session: Session, config: RunConfig | None, settings: Settings, chosen: str = "") -> dict[str, list[Offer]]:
    """The newest checkpoints by run, each with why it cannot start this config, and the chosen one however old it is."""
    query = select(Checkpoint, StageRun, Run).join(StageRun, col(StageRun.id) == Checkpoint.stage_id)
    query = query.join(Run, col(Run.id) == Checkpoint.run_id)
    newest = select(Checkpoint.id).order_by(col(Checkpoint.id).desc()).limit(OFFERED)
    found = session.exec(query.where(or_(col(Checkpoint.id).in_(newest), Checkpoint.path == chosen))).all()
    wanted = _wanted(config, settings) if config else None
    first = config.stage[0] if config else None
    by_run: dict[str, list[Offer]] = {}
    away = ""  # a store that does not answer is asked once, not for every checkpoint
    for checkpoint, row, run in sorted(found, key=_order):
        try:
            why_not = away or _why_not(checkpoint, row.stage, first, wanted)
        except Away as error:
            why_not = away = str(error)
        offer = Offer(checkpoint.path, _label(checkpoint, row.stage), why_not)
        by_run.setdefault(_("Run {id} · {name}").format(id=run.id, name=run.name), []).append(offer)
    return by_run


def _order(found: tuple[Checkpoint, StageRun, Run]) -> tuple[int, ...]:
    """Newest run first, in it the later stage, in that the best."""
    checkpoint, row, run = found
    return -run.id, -row.position, KINDS.index(checkpoint.kind) if checkpoint.kind in KINDS else len(KINDS), -checkpoint.step


def _label(checkpoint: Checkpoint, stage: Stage) -> str:
    loss = checkpoint.metrics.get("val_loss")
    shown = "" if loss is None else f", val_loss {number(loss)}"
    return _("{stage} · {kind}, step {step}{loss}").format(stage=stage, kind=checkpoint.kind, step=f"{checkpoint.step:,}", loss=shown)


def _wanted(config: RunConfig, settings: Settings) -> Architecture | None:
    """None where the models' configs are not on this machine, or not to be looked at; the plan says so at their fields."""
    try:
        models = {field: request.model(settings, field, getattr(config, field)) for field in MODELS}
        return architecture.of(config.model_copy(update=models))
    except (AppError, BadInput):
        return None


def _why_not(checkpoint: Checkpoint, stage: Stage, first: Stage | None, wanted: Architecture | None) -> str:
    """Empty when it can start it. Raises Away."""
    path = checkpoint.path
    if first and stage.number > first.number:
        return _("of a later stage than {stage}").format(stage=first)
    if artifacts.is_remote(path) and checkpoint.stored_at is None:
        return _("it is not in the store yet")
    if not artifacts.is_remote(path) and not Path(path).is_file():
        return _("its file is gone")
    try:
        theirs = _architecture(path, checkpoint.sha256)
        if wanted:
            rundir.check_same_architecture(Path(path), stage, theirs, wanted)
    except BadInput as error:
        return str(error).removeprefix(f"{path}: ").removeprefix("made with another architecture: ")
    return ""


@lru_cache(256)
def _architecture(path: str, sha256: str) -> Architecture:
    """Read once for each content, which is what the checksum stands for. Raises BadInput and Away."""
    return artifacts.read_note(path).architecture
