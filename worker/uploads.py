"""What an attempt has written, on its way to the object store: each checkpoint as soon as its row is there, the other files at the end.

The rows are the list of what waits, so a worker that dies loses no upload: whoever comes after it on this host finds the rest.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, select

from app import artifacts, discards
from app.artifacts import Gone, Tell
from app.checkpoints import stored
from app.checkpoints.lists import SECOND_NAMES
from app.formats import size
from app.i18n import _
from app.models import Attempt, Checkpoint, Job, JobStatus
from panollava import rundir
from panollava.data.fingerprint import DATA_FILE
from panollava.errors import BadInput
from panollava.events import LEASE_FILE, SAVE_FILE, STOP_FILE
from panollava.metrics.report import GROWING_FILE
from worker import links, scratch
from worker.follow import Claimed, Fenced, Sessions

KEPT_BACK = {STOP_FILE, SAVE_FILE, LEASE_FILE}
"""Words between worker and trainer, which nobody reads afterwards."""

log = logging.getLogger(__name__)


@dataclass
class Uploads:
    """The files of one attempt."""

    sessions: Sessions
    claimed: Claimed
    root: Path
    """The scratch directory."""
    tell: Tell = lambda _size: None

    def round(self) -> list[str]:
        """Every checkpoint that waits, and the removal of those that have made room. What could not be, in words. Raises Away."""
        with self.sessions.reading() as session:
            rows = stored.waiting(session, self.claimed.job_id, self.claimed.number)
        if rows:
            self._data()
        wrong = [problem for row in rows if (problem := self._checkpoint(row))]
        with self.sessions.reading() as session:
            old = stored.superseded(session, self.claimed.job_id, self.claimed.number)
        for row in old:
            self._remove(row)
        return wrong

    def rest(self) -> list[str]:
        """All that the attempt leaves, once its trainer has ended and its files are in the database. What could not be, in words. Raises Away."""
        wrong = self.round()
        with self.sessions.reading() as session:
            mine = (Checkpoint.job_id == self.claimed.job_id, Checkpoint.attempt == self.claimed.number)
            known = set(session.exec(select(Checkpoint.path).where(*mine)))
        for path in self._files():
            name = artifacts.join(self.claimed.name, path.relative_to(self.claimed.directory).as_posix())
            if not {name, name.removesuffix(".json")} & known:
                artifacts.upload(path, name, tell=self.tell)
        shutil.rmtree(self.claimed.directory / links.HELD, ignore_errors=True)
        if not wrong:
            scratch.end(self.claimed)
        return wrong

    def _data(self) -> None:
        """What the checkpoints have learned from, without which nobody could tell that a resume has other data."""
        if (path := self.claimed.directory / DATA_FILE).exists():
            artifacts.upload(path, artifacts.join(self.claimed.name, DATA_FILE))

    def _checkpoint(self, row: Checkpoint) -> str | None:
        """Why not, if not: the trainer may have put another file in its place or removed it, of which the next round knows."""
        began = time.monotonic()
        held = links.path_of(self.claimed.directory, row.path, row.sha256)
        try:
            self._hold(row, held)
            self._send(row, held)
        except (BadInput, FileNotFoundError) as error:
            return _("{path} is not in the store: {error}").format(path=row.path, error=error)
        finally:
            if row.kind in SECOND_NAMES:  # which is written anew again and again
                links.drop(held)
        with self.sessions.writing.begin() as session:
            is_wanted = stored.mark(session, row) or session.get(Checkpoint, row.id) is not None
        links.drop(held)
        if not is_wanted:
            artifacts.delete_checkpoint(row.path)
        log.info("Stored %s, %s in %.1f s", row.path, size(row.size), time.monotonic() - began)
        return None

    def _hold(self, row: Checkpoint, held: Path) -> None:
        """Raises Gone and BadInput."""
        path = artifacts.local(row.path, self.root)
        if not links.link(path, held):
            raise Gone(_("its trainer has removed it."))
        if rundir.read_note(held).sha256 != row.sha256:
            links.drop(held)
            raise Gone(_("it has been written anew."))

    def _send(self, row: Checkpoint, held: Path) -> None:
        artifacts.upload(rundir.note_path(held), artifacts.note_name(row.path))
        with self.sessions.reading() as session:
            twin = stored.twin(session, row)
        if not (twin and artifacts.copy(twin, row.path, row.sha256)):
            artifacts.upload(held, row.path, row.sha256, self.tell)

    def _remove(self, row: Checkpoint) -> None:
        """At no moment does a row that counts speak of an object that is gone."""
        with self.sessions.writing.begin() as session:
            if not stored.release(session, row):
                return
        artifacts.delete_checkpoint(row.path)
        with self.sessions.writing.begin() as session:
            stored.drop(session, row)

    def _files(self) -> Iterator[Path]:
        """What the trainer wrote beside its checkpoints, and is not half of something."""
        for path in sorted(self.claimed.directory.rglob("*")):
            parts = path.relative_to(self.claimed.directory).parts
            if parts[0] == rundir.CHECKPOINTS or parts[0].startswith(".") or path.name in KEPT_BACK or path.is_symlink() or not path.is_file():
                continue
            if path.name == GROWING_FILE or not any(part.endswith(".part") for part in parts):
                yield path


def store_rest(sessions: Sessions, claimed: Claimed, root: Path | None, tell: Tell = lambda _size: None) -> None:
    """What an attempt that nobody follows any more has left on this host. Raises Away, and Fenced while somebody else of this host is at it."""
    if not (root and artifacts.is_remote(claimed.name) and claimed.directory.exists()):
        return
    with scratch.taken(claimed) as mine:
        if not mine:
            raise Fenced
        for problem in Uploads(sessions, claimed, root, tell).rest():
            log.warning("%s", problem)


def left_behind(sessions: Sessions, root: Path) -> None:
    """Upload what ended attempts had to leave on this host while the store was away, so that the next one goes on from it. Raises Away."""
    with sessions.reading() as session:
        numbers = stored.left_behind(session)
        attempts = [session.exec(select(Attempt).where(Attempt.job_id == job, Attempt.number == number)).one() for job, number in numbers]
    for claimed in [Claimed.of(attempt, root) for attempt in attempts]:
        if claimed.directory.exists():
            with suppress(Fenced):
                store_rest(sessions, claimed, root)
                with sessions.writing.begin() as session:
                    _settle(session, claimed)


def _settle(session: Session, claimed: Claimed) -> None:
    """The next attempt goes on from what has arrived; of a run that was deleted meanwhile it is to go again."""
    if session.get(Job, claimed.job_id):
        stored.choose_anew(session, claimed.job_id, claimed.number, [JobStatus.queued])
    else:
        discards.add(session, claimed.name, None, is_directory=True)
