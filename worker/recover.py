"""Jobs whose worker and trainer are gone: bring in what the trainers still wrote, then queue them again from the last good checkpoint.

On this machine they are gone when their processes are; elsewhere when nothing was heard for so long that the trainer, which has no
lease then, has saved and left. A trainer that outlived its worker is adopted (`worker.adopt`), or leaves by itself.
"""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta

from app import doorbell
from app.artifacts import Away
from app.jobs.finish import finish
from app.jobs.states import PATIENCE
from app.jobs.stopping import KILL_AFTER
from panollava.events import EVENTS_FILE
from worker import orphans, outcome, roster, uploads
from worker.follow import AWAY, BATCH_BYTES, Fenced, Sessions, hear, take_in
from worker.hold import Hold
from worker.lease import LEASE_SECONDS
from worker.orphans import Contact, Watched
from worker.process import OUTPUT_FILE
from worker.roster import Member

TAKEOVER = timedelta(seconds=LEASE_SECONDS + KILL_AFTER)
"""Silence after which a job is taken from whoever had it, wherever that is: its trainer has had the time of its lease, and time to save."""

log = logging.getLogger(__name__)


class Immortal(Exception):
    """A trainer that SIGKILL does not end, by its pid: while it lives it may write, so nobody else begins."""


class Recovery:
    """One worker's eye on the others, and on what a predecessor of its own name left behind."""

    def __init__(
        self, sessions: Sessions, member: Member, broker_url: str, takeover: timedelta = TAKEOVER, contact: timedelta = PATIENCE
    ) -> None:  # fmt: skip
        self.sessions, self.member, self.broker_url = sessions, member, broker_url
        self.takeover = takeover
        self.contact = contact
        """How long this worker must have written to the database without a break before it calls anybody silent."""
        self.death = 5.0
        """Seconds that a trainer may take to die of SIGKILL. One that sleeps in a driver takes for ever."""
        self._contact = Contact(longest_gap=PATIENCE)

    def others(self) -> None:
        """Recover the jobs of workers that are gone, and end trainers of this machine whose attempt is over."""
        with self.sessions.reading() as session:
            strays = orphans.strays(session)
        for stray in strays:
            log.warning("Trainer %d belongs to an attempt that was given up; killing it.", stray.pid)
            try:
                stray.kill()
            except PermissionError:  # of another user, say: others' jobs are recovered all the same
                log.warning("Trainer %d may not be killed from here; end it as the user it belongs to.", stray.pid)
        self._recover([each for each in self._lost() if each.worker_id != self.member.id])

    def everybody(self) -> None:
        """Recover the jobs of workers that are gone, and those of this very worker. Only for a caller who knows that it is at none."""
        self._recover(self._lost())

    def _lost(self) -> list[Watched]:
        try:
            now = roster.reach(self.sessions.writing, self.member)
            with self.sessions.reading() as session:
                seen = orphans.watched(session, self.member)
        except AWAY:
            self._contact.broke()
            raise
        may_judge = self._contact.lasts(now) >= self.contact
        return [each for each in seen if each.is_gone or (may_judge and each.heard_at and now - each.heard_at > self.takeover)]

    def _recover(self, lost: Sequence[Watched]) -> None:
        for each in lost:
            with each.claimed.named():
                self._recover_one(each)

    def _recover_one(self, lost: Watched) -> None:
        log.warning("Nobody works on job %d, attempt %d, any more; recovering it.", lost.claimed.job_id, lost.claimed.number)
        hold = Hold(self.sessions, self.member, lost)
        try:
            self._end(lost, hold)
            self._bring_in(lost, hold)
            with hold.beating():
                uploads.store_rest(self.sessions, lost.claimed, self.member.scratch, hold.tell)
            self._settle(lost, hold)
        except Fenced:
            log.warning("Somebody else has taken job %d.", lost.claimed.job_id)
        except Immortal as error:
            log.warning("Trainer %s, of job %d, lives although it was killed; looking again at the next sweep.", error, lost.claimed.job_id)
        except AWAY:
            raise
        except Away as error:
            log.warning("Job %d is recovered when the store answers: what its trainer left is on this host alone. %s", lost.claimed.job_id, error)
        except Exception:  # an unreadable directory, say: one such job must not keep the others from being recovered
            log.exception("Job %d could not be recovered; trying again at the next sweep.", lost.claimed.job_id)

    def _end(self, lost: Watched, hold: Hold) -> None:
        """Of a trainer of this machine nothing is left to write; one that has ended may have left its data loaders. Raises Fenced, Immortal."""
        if not lost.is_here or lost.trainer is None:
            return
        with self.sessions.writing.begin() as session:
            hold.check(session)  # who found it silent may have been busy with another job since
            lost.trainer.kill()
        deadline = time.monotonic() + self.death
        while lost.trainer.alive:
            if time.monotonic() > deadline:
                raise Immortal(lost.trainer.pid)
            time.sleep(0.05)
        lost.trainer.kill_rest()

    def _bring_in(self, lost: Watched, hold: Hold) -> None:
        """All that its trainer wrote; of one elsewhere, which may still write, what is there now. Raises Fenced."""
        taken = BATCH_BYTES
        while taken > (0 if lost.is_here else BATCH_BYTES // 2):
            said = hear(self.sessions, lost.claimed)
            with self.sessions.writing.begin() as session:
                hold.check(session)
                take_in(session, lost.claimed, said)
            taken = len(said)

    def _settle(self, lost: Watched, hold: Hold) -> None:
        """What the attempt came to: its own end, or another attempt. Raises Fenced."""
        claimed = lost.claimed
        result = outcome.judge(outcome.last_word(claimed.directory / EVENTS_FILE), None, outcome.last_lines(claimed.directory / OUTPUT_FILE))
        with self.sessions.writing.begin() as session:
            devices = hold.check(session)
            finish(
                session, claimed.job_id, claimed.number, result.status,
                actor=f"recovery by {self.member.name}", reason=result.reason, detail=result.detail, best=result.best,
                files=claimed.directory,
            )  # fmt: skip
        doorbell.ring(devices, self.broker_url)
        doorbell.announce(self.broker_url)
