"""What a run keeps of its checkpoints, what would go and how much room that makes, and the removal itself.

Of every stage that is not at work the best and the last file are kept, what was pinned, exported or handed to another stage, what an open
job needs, final weights, and the newest step checkpoints as its rule says. A file goes under all its names or not at all.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select

from app import artifacts, discards
from app.checkpoints import kept
from app.checkpoints import service as checkpoints
from app.checkpoints.kept import File
from app.errors import Conflict
from app.i18n import _
from app.models import ENDED, Checkpoint, Evaluation, Export, Job, JobKind, JobStatus, Run, StageRun
from app.runs import service as runs
from panollava import rundir

log = logging.getLogger(__name__)


class Rule(BaseModel):
    """What a run keeps beside what is always kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(1, ge=0, le=1000, description="Newest step checkpoints that each stage keeps.")
    automatic: bool = Field(False, description="Remove the rest whenever a stage has succeeded.")


@dataclass(frozen=True)
class Kept:
    """One file under its names, and why it stays; no reason: it may go."""

    names: Sequence[Checkpoint]
    reasons: Sequence[str]

    @property
    def row(self) -> Checkpoint:
        return self.names[0]

    @property
    def paths(self) -> list[Path]:
        """Of a directory; what a store has are objects, each on its own."""
        local = [Path(name.path) for name in self.names if not artifacts.is_remote(name.path)]
        return [path for name in local for path in (name, rundir.note_path(name))]

    @property
    def stored(self) -> list[Checkpoint]:
        return [name for name in self.names if artifacts.is_remote(name.path)]


@dataclass(frozen=True)
class Plan:
    """What a rule comes to, for one run at one moment."""

    rule: Rule
    stay: Sequence[Kept]
    go: Sequence[Kept]
    freed: int
    """Bytes. A file counts once, under however many names, and not while a name of it stays."""
    leaving: discards.Waiting
    """What the run has given up before and the store still has."""


def rule_of(run: Run) -> Rule:
    return Rule.model_validate(run.retention or {})


def plan(session: Session, run: Run, rule: Rule) -> Plan:
    """Reads rows and the sizes of files; removes nothing."""
    files = _files(session, run, rule)
    go = [each for each in files if not each.reasons]
    return Plan(rule, [each for each in files if each.reasons], go, freed(go), discards.waiting(session, run.id))


def keep(session: Session, run: Run, rule: Rule) -> None:
    """From now on this is the run's rule. Raises NotFound for a run that was deleted meanwhile; it is not before this transaction ends."""
    runs.hold(session, run)
    run.retention = rule.model_dump()
    session.add(run)


def apply(session: Session, run: Run, rule: Rule, only: Collection[int] | None = None) -> Plan:
    """Remove what may go by this moment; with `only`, no other checkpoints than these. What was removed.

    Files go before their rows: whoever is killed in between leaves rows without files, which say so and go the next time. Objects of a store go
    after them, by `discards.sweep`: the store is not waited for in here.
    """
    checkpoints.locked(session, Checkpoint.run_id == run.id)  # who wants one of them has said so, or finds it gone
    planned = plan(session, run, rule)
    go = [each for each in planned.go if only is None or {name.id for name in each.names} & set(only)]
    size = freed(go)
    for each in go:
        _remove(session, each)
    return Plan(rule, planned.stay, go, size, discards.waiting(session, run.id))


def delete(session: Session, checkpoint: Checkpoint) -> int:
    """Remove one file under all its names; the bytes that this frees. Raises Conflict naming what it is kept for, NotFound where it is gone."""
    checkpoints.lock(session, checkpoint)
    run = session.get_one(Run, checkpoint.run_id)
    found = next(each for each in _files(session, run, Rule(steps=0)) if checkpoint.id in {name.id for name in each.names})
    if found.reasons:
        raise Conflict(_("Checkpoint {id} is kept: {why}.").format(id=checkpoint.id, why=", ".join(found.reasons)))
    size = freed([found])
    _remove(session, found)
    return size


def pin(session: Session, checkpoint: Checkpoint, pinned: bool) -> None:
    """Its file, under all its names. Raises Conflict or NotFound when it has just been removed."""
    names = checkpoints.lock(session, checkpoint)
    if pinned:
        checkpoints.hold(session, checkpoint)
    for name in names:
        name.pinned = pinned
        session.add(name)


def after_stage(session: Session, job: Job) -> None:
    """A stage has ended: where the run's rule says so, what may go goes. What cannot be removed stays, and no training fails for it."""
    run = session.get_one(Run, job.run_id) if job.kind is JobKind.train else None
    if run is None or job.status is not JobStatus.succeeded or not rule_of(run).automatic:
        return
    session.flush()
    try:
        done = apply(session, run, rule_of(run))
    except OSError as error:
        log.warning("Checkpoints of run %d that it does not keep could not all be removed. %r", run.id, error)
        return
    log.info("Run %d keeps %d files; %d were removed, %d bytes.", run.id, len(done.stay), len(done.go), done.freed)


def freed(files: Sequence[Kept]) -> int:
    """Bytes that file system and store get back when exactly these are removed."""
    return released(path for each in files for path in each.paths) + sum(name.size for each in files for name in each.stored)


def released(paths: Iterable[Path]) -> int:
    """Of files that have no other name."""
    names: dict[tuple[int, int], list[int]] = defaultdict(list)
    facts = {}
    for path in {path.resolve() for path in paths if path.is_file()}:
        with suppress(FileNotFoundError):  # somebody else has just removed it
            facts[path] = found = path.stat()
            names[found.st_dev, found.st_ino].append(found.st_nlink)
    sizes = {(found.st_dev, found.st_ino): found.st_size for found in facts.values()}
    return sum(sizes[file] for file, links in names.items() if len(links) == links[0])


def _remove(session: Session, file: Kept) -> None:
    for path in file.paths:
        path.unlink(missing_ok=True)
    for name in file.stored:
        discards.add(session, name.path, name.run_id, name.size)
    for name in file.names:
        session.delete(name)
    session.flush()


# Why a file stays


def _files(session: Session, run: Run, rule: Rule) -> list[Kept]:
    """Every file of the run, the furthest first within its stage."""
    rows = session.exec(select(Checkpoint).where(Checkpoint.run_id == run.id)).all()
    stages = {stage.id: stage for stage in session.exec(select(StageRun).where(StageRun.run_id == run.id))}
    names = kept.names_of(session, rows)
    why = _reasons(session, rows, stages, rule)
    found = [Kept(each, list(dict.fromkeys(reason for name in each for reason in why[name.id]))) for each in names.values()]
    return sorted(found, key=lambda each: (stages[each.row.stage_id].position, each.row.step, each.row.id), reverse=True)


def _reasons(session: Session, rows: Sequence[Checkpoint], stages: Mapping[int, StageRun], rule: Rule) -> Mapping[int, list[str]]:
    """By the rows' ids."""
    newest = _newest_jobs(session, stages)
    of: dict[str, set[int]] = {
        _("its stage is at work"): {row.id for row in rows if newest[row.stage_id].status not in ENDED},
        _("best"): kept.best(rows, stages.values()),
        _("last"): kept.newest(rows, "last"),
        _("resuming goes on from it"): _resumed(session, newest.values()),
        _("final weights"): {row.id for row in rows if row.kind == "final"},
        _("pinned"): {row.id for row in rows if row.pinned},
        _("exported"): _exported(session, rows),
        _("another stage started from it"): _named(session, rows, select(StageRun.init_checkpoint)),
        _("a job needs it"): _needed(session, rows),
        _("one of the newest"): _newest_steps(rows, rule.steps),
    }
    found: dict[int, list[str]] = defaultdict(list)
    for reason, ids in of.items():
        for id_ in ids:
            found[id_].append(reason)
    return found


def _newest_jobs(session: Session, stages: Collection[int]) -> dict[int, Job]:
    query = select(Job).where(col(Job.stage_id).in_(stages)).order_by(col(Job.id))
    return {job.stage_id or 0: job for job in session.exec(query)}


def _resumed(session: Session, newest: Iterable[Job]) -> set[int]:
    """Where stages go on that have not succeeded, as far as files are whole."""
    last = (checkpoints.last_good(session, job) for job in newest if job.status is not JobStatus.succeeded)
    return {each.id for each in last if each}


def _exported(session: Session, rows: Sequence[Checkpoint]) -> set[int]:
    wanted: set[File] = set(session.exec(select(Export.stage_id, Export.step, Export.sha256)).all())
    return {row.id for row in rows if kept.file_of(row) in wanted}


def _needed(session: Session, rows: Sequence[Checkpoint]) -> set[int]:
    """By a job that waits or is at work: to go on from, or to evaluate."""
    open_ = col(Job.status).not_in(ENDED)
    evaluated = select(Evaluation.checkpoint_id).join(Job, col(Job.evaluation_id) == Evaluation.id).where(open_)
    ids = set(session.exec(evaluated))
    return {row.id for row in rows if row.id in ids} | _named(session, rows, select(Job.resume_from).where(open_))


def _named(session: Session, rows: Sequence[Checkpoint], query: object) -> set[int]:
    """Those whose paths a query gives."""
    paths = set(session.exec(query).all())  # type: ignore[call-overload]
    return {row.id for row in rows if row.path in paths}


def _newest_steps(rows: Iterable[Checkpoint], count: int) -> set[int]:
    """The furthest step checkpoints of each stage."""
    steps: dict[int, list[Checkpoint]] = defaultdict(list)
    for row in rows:
        if row.kind == "step":
            steps[row.stage_id].append(row)
    furthest = (sorted(of, key=lambda row: (row.step, row.id), reverse=True)[:count] for of in steps.values())
    return {row.id for of in furthest for row in of}
