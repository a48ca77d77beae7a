"""Trainers of this machine that outlived their worker: a worker with the same devices goes on with them, in the same attempt.

Where they stand in their files is in the attempt's row, so not one step, point or log line is lost or doubled. Devices on which such a
trainer lives are not used for anything else.
"""

import logging
from dataclasses import dataclass

from sqlmodel import Session

from app import doorbell
from app.i18n import _, ngettext
from app.jobs import service as jobs
from app.models import Worker
from worker import orphans
from worker.follow import Claimed, Sessions
from worker.orphans import Watched
from worker.process import Adopted
from worker.roster import Member

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adoption:
    """One worker's hands for what others left behind. Only for a caller who knows that it is at no job."""

    sessions: Sessions
    member: Member
    broker_url: str

    def take(self) -> tuple[Claimed, Adopted] | None:
        """A trainer that is this worker's from now on, if there is one."""
        with self.sessions.reading() as session:
            seen = orphans.watched(session, self.member)
        for each in filter(self._fits, seen):
            with self.sessions.writing.begin() as session:
                taken = self._take(session, each)
            if taken:
                log.info("Job %d, attempt %d, has lost its worker and is adopted.", each.claimed.job_id, each.claimed.number)
                doorbell.announce(self.broker_url)
                return each.claimed, taken
        return None

    def held_by(self) -> str | None:
        """Which of this worker's devices a trainer is on that is nobody's, or somebody else's to adopt."""
        with self.sessions.reading() as session:
            held = orphans.held(session, self.member) & set(self.member.devices)
        if not held:
            return None
        devices = ", ".join(sorted(held))
        log.warning("A trainer without a worker is on %s; waiting until it has been adopted or has left.", devices)
        text = ngettext("its device {devices} is", "its devices {devices} are", len(held)).format(devices=devices)
        return text + _(" held by a trainer that has lost its worker, until that is adopted or has left")

    def _fits(self, seen: Watched) -> bool:
        """A worker with another scratch directory would follow files that are not there."""
        mine = seen.devices == set(self.member.devices) and seen.claimed.directory.is_dir()
        return seen.is_left and seen.trains and mine

    def _take(self, session: Session, seen: Watched) -> Adopted | None:
        """Whoever gets here second finds the job another worker's, or its worker alive again."""
        found = orphans.again(session, seen, self.member)
        if found is None or not self._fits(found[1]) or seen.trainer is None:
            return None
        mine = jobs.adopt(session, found[0], seen.claimed.number, seen.worker_id, session.get_one(Worker, self.member.id))
        return Adopted(seen.trainer) if mine else None
