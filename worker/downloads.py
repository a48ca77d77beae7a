"""What a job names and this host has not got: its checkpoints and the answers it goes on from, brought from the object store and compared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session, select

from app import artifacts
from app.artifacts import Away, Gone, Tell
from app.checkpoints import service as checkpoints
from app.checkpoints import stored
from app.formats import size
from app.i18n import _
from app.models import ACTIVE, Attempt, Checkpoint, Evaluation, Export, Job, JobKind, StageRun
from panollava import rundir
from panollava.data.fingerprint import DATA_FILE
from panollava.metrics.report import GROWING_FILE, SETTINGS_FILE
from worker import scratch
from worker.follow import Claimed, Fenced, Sessions

Say = Callable[[str, str], None]
"""A level (info, warning) and a text for people."""


@dataclass
class Downloads:
    """Copies for one attempt. What is here already is compared and used."""

    sessions: Sessions
    claimed: Claimed
    root: Path
    """The scratch directory."""
    say: Say
    tell: Tell
    _here: dict[str, Path] = field(default_factory=dict)

    def bring(self) -> None:
        """All that the job names. Raises Gone for what the store has not got, Away, and Fenced."""
        with self.sessions.reading() as session:
            job = session.get_one(Job, self.claimed.job_id)
            start = START[job.kind](session, job)
        if job.kind is JobKind.evaluate:
            self._answers(job)
        if not self._resumed() and start and artifacts.is_remote(start):
            self._checkpoint(start)

    def _resumed(self) -> bool:
        """The checkpoint to go on from; when the store has lost it, the one before it. False: from the start."""
        while rows := self._to_resume():
            for row in rows:
                try:
                    self._row(row)
                except Gone as error:
                    self._lose(row, error)
                    if row is rows[0]:
                        break
            else:
                self._data(rows[0])
                return True
        return False

    def _to_resume(self) -> list[Checkpoint]:
        with self.sessions.reading() as session:
            path = session.get_one(Job, self.claimed.job_id).resume_from
            return stored.to_resume(session, path) if path else []

    def _lose(self, row: Checkpoint, error: Gone) -> None:
        """Raises Fenced."""
        with self.sessions.writing.begin() as session:
            job = session.get(Job, self.claimed.job_id, with_for_update=True)
            if job is None or job.attempt != self.claimed.number or job.status not in ACTIVE:
                raise Fenced
            stored.miss(session, row)
            instead = stored.choose_anew(session, self.claimed.job_id, self.claimed.number, ACTIVE)
        self.say("warning", _("{error} Continuing from {instead}.").format(error=error, instead=instead or _("the start")))

    def _checkpoint(self, name: str) -> None:
        with self.sessions.reading() as session:
            row = checkpoints.at(session, name)
            if row is None:
                raise Gone(_("{name}: no checkpoint of ours has this address.").format(name=name))
            if row.stored_at is None and stored.is_coming(session, row):
                raise Away(_("{name}: still on its way to the store.").format(name=name))
        self._row(row)
        self._data(row)

    def _data(self, row: Checkpoint) -> None:
        """What it has learned from: a resume is refused other data, and an export tells people."""
        with self.sessions.reading() as session:
            wrote = (Attempt.job_id == row.job_id, Attempt.number == row.attempt)
            name = artifacts.join(session.exec(select(Attempt.directory).where(*wrote)).one(), DATA_FILE)
        if artifacts.exists(name):
            artifacts.fetch(name, self.root, tell=self.tell)

    def _row(self, row: Checkpoint) -> None:
        """The file and the note beside it. The same bytes under another name are linked, not brought twice."""
        path = artifacts.local(row.path, self.root)
        note = artifacts.read_note(row.path)
        if note.sha256 != row.sha256:
            raise Gone(_("{name}: the store has another file than it was.").format(name=row.path))
        if (same := self._here.get(row.sha256)) and not path.exists():
            rundir.link_whole(same, path)
        if not path.exists():
            self.say("info", _("Downloading {name}, {size}.").format(name=row.path, size=size(row.size)))
        self._here[row.sha256] = artifacts.fetch(row.path, self.root, row.sha256, self.tell)
        rundir.write_whole(rundir.note_path(path), note.model_dump_json(indent=1))
        scratch.use(path)

    def _answers(self, job: Job) -> None:
        """Of the newest attempt that left some."""
        for number in range(self.claimed.number - 1, 0, -1):
            directory = artifacts.join(job.directory, f"attempt-{number}")
            if artifacts.exists(artifacts.join(directory, GROWING_FILE)):
                for name in (GROWING_FILE, SETTINGS_FILE):
                    artifacts.fetch(artifacts.join(directory, name), self.root, tell=self.tell)
                return


START: dict[JobKind, Callable[[Session, Job], str | None]] = {
    JobKind.train: lambda session, job: session.get_one(StageRun, job.stage_id).init_checkpoint,
    JobKind.evaluate: lambda session, job: str(session.get_one(Evaluation, job.evaluation_id).config["checkpoint"]),
    JobKind.export: lambda session, job: session.get_one(Export, job.export_id).path,
}
"""The checkpoint that a job begins with when it goes on from none."""
