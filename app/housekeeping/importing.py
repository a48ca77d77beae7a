"""`panollava import`: trainings from a terminal become runs, with the code by which workers bring in what their trainers write.

Files stay where they are. Importing again takes in what is new, from the offsets in the attempts' rows. Each process that trained is an
attempt of its job. One that has not said how it ended stays at work and silent, as far as anybody knows, until it is imported again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy.orm import sessionmaker
from sqlmodel import Session, col, select

from app import db, ingest
from app.checkpoints import service as checkpoints
from app.errors import Conflict
from app.housekeeping import terminal
from app.housekeeping.terminal import StageDirectory, Stretch
from app.i18n import _
from app.jobs import service as jobs
from app.jobs.finish import BETWEEN
from app.jobs.states import MOVES, move_on
from app.models import ACTIVE, Attempt, Checkpoint, Job, JobKind, JobStatus, Run, StageRun
from app.paths import allowed, shared_cache
from app.requests import digest
from app.runs import service as runs
from app.runs.request import PATHS
from app.settings import Settings
from panollava import causes, rundir
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import EVENTS_FILE
from panollava.refusals import MODELS
from panollava.stages import Stage

ACTOR = "import"
BATCH_BYTES = 1 << 20
"""About the most bytes of one file in one transaction, so that a long training never holds the database for long."""
ENDS = {"succeeded": JobStatus.succeeded, "stopped": JobStatus.stopped, "failed": JobStatus.failed}


@dataclass
class Imported:
    """What came of one stage's directory."""

    run_id: int
    name: str
    stage: Stage
    came_to: str = ""
    """The status of its job by now."""
    taken: int = 0
    """Bytes of events and log that the database had not had."""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Importer:
    """The house that trainings are brought into. `over` says that those without a last word have ended nevertheless."""

    writing: sessionmaker[Session]
    settings: Settings
    over: bool = False
    heard: Callable[[str, int, int], None] = lambda what, done, total: None
    """Is told how far a file is: its name, bytes done, bytes in all."""

    def bring_in(self, directory: str) -> list[Imported]:
        """Every stage of every run that lies there. Raises Invalid, Forbidden and Conflict for what is no training, or not this one any more."""
        stages = terminal.stages_in(allowed(self.settings, "RUN_DIR", directory))
        for each in stages:
            allowed(self.settings, "RUN_DIR", str(each.path))
        found = []
        for _run, of_run in groupby(stages, lambda each: each.run):
            chain = list(of_run)
            run_id = self._run(chain)
            found += [_Stage(self, run_id, each).bring_in() for each in chain]
        return found

    def _run(self, chain: Sequence[StageDirectory]) -> int:
        """The run of these stages, as the newest config has it; made if it is not there."""
        key = str(chain[0].run)
        with self.writing.begin() as session:
            db.lock(session, f"import {key}")
            run = session.exec(select(Run).where(Run.imported_from == key)).first()
            if run is None:
                run = Run(name=chain[0].config.name, config={}, request_hash="", created_at=db.now(session), created_by=ACTOR, imported_from=key)
                run.directory = str(chain[0].path.parent)
                session.add(run)
                session.flush()
            rows = {row.stage: row for row in session.exec(select(StageRun).where(StageRun.run_id == run.id))}
            stages = sorted({*rows, *(each.stage for each in chain)}, key=lambda stage: stage.number)
            for position, stage in enumerate(stages):
                session.add((rows.get(stage) or StageRun(run_id=run.id, stage=stage, position=0)).sqlmodel_update({"position": position}))
            run.config = _config(max(chain, key=lambda each: each.stretches[-1].last_t), stages, self.settings)
            run.request_hash = digest(run.config)
            return run.id


@dataclass(frozen=True)
class _Stage:
    """One directory on its way into the rows of one stage."""

    house: Importer
    run_id: int
    of: StageDirectory

    def bring_in(self) -> Imported:
        done = Imported(self.run_id, self.of.config.name, self.of.stage)
        for number, stretch in enumerate(self.of.stretches):
            is_newest = number == len(self.of.stretches) - 1
            with self.house.writing.begin() as session:
                begun = self._attempt(session, number, stretch)
            if not self._take(begun, number, stretch, done):
                continue
            with self.house.writing.begin() as session:
                self._settle(session, begun, stretch, over=self.house.over or not is_newest)
        with self.house.writing.begin() as session:
            done.came_to = self._tidy(session)
        return done

    # attempts ---------------------------------------------------------------------

    def _attempt(self, session: Session, number: int, stretch: Stretch) -> int:
        """The id of a stretch's attempt, begun if need be. Raises Conflict where the rows are of other files than the directory has now."""
        stage = self._row(session)
        known = session.exec(select(Attempt).join(Job).where(Job.stage_id == stage.id).order_by(col(Attempt.id))).all()
        if number < len(known):
            self._check_same(known[number], stretch)
            return known[number].id
        job = session.exec(select(Job).where(Job.stage_id == stage.id).order_by(col(Job.id).desc())).first()
        if job is None or job.status is JobStatus.succeeded:
            job = self._enqueue(session, stage)
        elif job.status is not JobStatus.queued:
            move_on(session, job, JobStatus.queued, ACTOR, "resumed")
        move_on(session, job, JobStatus.starting, ACTOR, "imported", started_at=stretch.began_at, heartbeat_at=stretch.began_at, progress={})
        attempt = Attempt(
            job_id=job.id, number=job.attempt, directory=str(self.of.path), event_offset=stretch.start, started_at=stretch.began_at,
            resumed_step=stretch.began.step,
        )  # fmt: skip
        session.add(attempt)
        session.flush()
        return attempt.id

    def _row(self, session: Session) -> StageRun:
        """Locked: two imports of one directory go one after the other."""
        runs.hold(session, session.get_one(Run, self.run_id))
        mine = select(StageRun).where(StageRun.run_id == self.run_id, StageRun.stage == self.of.stage)
        stage = session.exec(mine.with_for_update()).one()
        if stage.init_checkpoint is None:
            stage.init_checkpoint = self._start(session)
            session.add(stage)
        return stage

    def _start(self, session: Session) -> str | None:
        """Where its weights came from: the stage before it in its chain, else what was named."""
        earlier = [stage for stage in self.of.config.stage if stage.number < self.of.stage.number]
        if not earlier:
            named = self.of.config.init_from
            return named and str(self.of.stood_in / named)
        best = select(Checkpoint.path).join(StageRun, col(StageRun.best_checkpoint_id) == Checkpoint.id)
        return session.exec(best.where(StageRun.run_id == self.run_id, StageRun.stage == earlier[-1])).first()

    def _enqueue(self, session: Session, stage: StageRun) -> Job:
        job = Job(kind=JobKind.train, run_id=self.run_id, stage_id=stage.id, devices=self.of.config.devices, directory=str(self.of.path))
        return jobs.enqueue(session, job, ACTOR, "imported")

    def _check_same(self, attempt: Attempt, stretch: Stretch) -> None:
        if attempt.boot_id is not None:
            text = _("{path}: run {run} went on in the dashboard (attempt {number}); what a terminal trains there now is not taken in.")
            raise Conflict(text.format(path=self.of.path, run=self.run_id, number=attempt.number))
        is_same = abs((attempt.started_at - stretch.began_at).total_seconds()) < 0.001
        if not is_same or attempt.event_offset > stretch.end:
            text = _("{path}: was trained anew since it was imported as run {run}. Give the new training a --name of its own, or remove run {run}.")
            raise Conflict(text.format(path=self.of.path, run=self.run_id))

    # bytes --------------------------------------------------------------------------

    def _take(self, attempt_id: int, number: int, stretch: Stretch, done: Imported) -> bool:
        """What is new of a stretch and of its log. False if the attempt is over, and so all of it was taken before."""
        if not self._is_open(attempt_id):
            return False
        done.taken += sum(self._new(attempt_id, self.of.path / EVENTS_FILE, "event_offset", stretch.end))
        if log := self.of.log_of(number):
            done.taken += sum(self._new(attempt_id, log, "log_offset", log.stat().st_size))
        else:
            done.remarks.append(_("no log was found of the training that began at {at:%Y-%m-%d %H:%M:%S} UTC").format(at=stretch.began_at))
        return True

    def _is_open(self, attempt_id: int) -> bool:
        with self.house.writing() as session:
            attempt = session.get_one(Attempt, attempt_id)
            job = session.get_one(Job, attempt.job_id)
            return job.attempt == attempt.number and job.status in ACTIVE

    def _new(self, attempt_id: int, path: Path, column: str, end: int) -> Iterator[int]:
        """Brings in the bytes from the offset on, a batch in each transaction; how many they were."""
        take = ingest.events if column == "event_offset" else ingest.log
        with path.open("rb") as file:
            while True:
                with self.house.writing.begin() as session:
                    attempt = session.get_one(Attempt, attempt_id)
                    offset = getattr(attempt, column)
                    file.seek(offset)
                    data = _batch(file, end - offset, whole_lines=column == "event_offset")
                    if not data or not take(session, session.get_one(Job, attempt.job_id), attempt, data):
                        return
                self.house.heard(path.name, offset + len(data), end)
                yield len(data)

    # ends -----------------------------------------------------------------------------

    def _settle(self, session: Session, attempt_id: int, stretch: Stretch, *, over: bool) -> None:
        """What the attempt has come to, by its own last word; one without a word has ended if `over`."""
        attempt = session.get_one(Attempt, attempt_id)
        job = session.get_one(Job, attempt.job_id, with_for_update=True, populate_existing=True)
        if job.attempt != attempt.number or job.status not in ACTIVE:
            return
        job.heartbeat_at = min(stretch.last_at, db.now(session))
        session.add(job)
        if stretch.word:
            self._end(session, job, attempt, ENDS[stretch.word.status], **self._words(session, job, attempt, stretch))
        elif over:
            detail = _("It never said how it ended; it was last heard of at {at:%Y-%m-%d %H:%M:%S} UTC.").format(at=stretch.last_at)
            self._end(session, job, attempt, JobStatus.failed, reason="no_outcome", detail=detail)
        else:
            return
        attempt.ended_at = job.finished_at = stretch.last_at
        session.add_all([attempt, job])

    def _words(self, session: Session, job: Job, attempt: Attempt, stretch: Stretch) -> dict[str, Any]:
        """Reason and detail of an end; a stage that succeeded has its best checkpoint named, if that is still there."""
        assert stretch.word
        reason, detail = causes.named(stretch.word.reason or stretch.word.status, stretch.word.detail or ""), stretch.word.detail
        if stretch.word.status == "succeeded":
            stage = session.get_one(StageRun, job.stage_id)
            try:
                stage.best_checkpoint_id = checkpoints.best(session, job, attempt, stretch.word.best).id
                session.add(stage)
            except BadInput as error:
                detail = str(error)
        return {"reason": reason, "detail": detail and detail.replace("\0", "\ufffd")}

    def _end(self, session: Session, job: Job, attempt: Attempt, status: JobStatus, *, reason: str, detail: str | None) -> None:
        if status not in MOVES[job.status]:
            move_on(session, job, BETWEEN[status], ACTOR, reason)
        move_on(session, job, status, ACTOR, reason, detail=detail)

    def _tidy(self, session: Session) -> str:
        """Checkpoints are as old as their notes say. The status of the stage."""
        stage = self._row(session)
        for row in session.exec(select(Checkpoint).where(Checkpoint.stage_id == stage.id)):
            try:
                row.created_at = rundir.read_note(Path(row.path)).created_at.astimezone(UTC)
            except BadInput:
                continue  # the file is gone, which its page says; when it was written is not known any more
            session.add(row)
        return session.exec(select(Job.status).where(Job.stage_id == stage.id).order_by(col(Job.id).desc())).first() or ""


def _batch(file: Any, left: int, *, whole_lines: bool) -> bytes:
    """Up to `left` bytes, which end a line where lines are wanted."""
    data: bytes = file.read(max(0, min(BATCH_BYTES, left)))
    if whole_lines and len(data) < left and not data.endswith(b"\n"):
        data += file.readline()
    return data


def _config(of: StageDirectory, stages: Sequence[Stage], settings: Settings) -> dict[str, Any]:
    """What it was trained with, with paths that do not depend on where the trainer stood, so that the run can go on from here."""
    config, here = of.config, of.stood_in
    named = {name: str(here / value) for name in PATHS if (value := getattr(config, name))}
    named |= {name: str(here / value) for name in MODELS if (here / (value := getattr(config, name))).is_dir()}
    tables = {
        "csv_train": tuple(str(here / path) for path in config.csvs("train")),
        "csv_val": tuple(str(here / path) for path in config.csvs("valid")),
    }
    ours = {"stage": tuple(stages), "output_dir": str(of.path.parent), "log_dir": ""} | shared_cache(settings)
    return RunConfig.model_validate(config.model_copy(update=named | tables | ours).model_dump()).model_dump(mode="json")
