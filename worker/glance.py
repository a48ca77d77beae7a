"""What is on this worker's GPUs, as the driver sees it, told to pages; and whether strangers leave room for a job."""

import logging
import os
from dataclasses import dataclass

from sqlmodel import Session

from app import gpus
from app.gpus import Gpu, NoAnswer
from worker import orphans, roster
from worker.follow import Sessions
from worker.roster import Member

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Glance:
    """One worker's eye on its devices. On the CPU it sees nothing."""

    sessions: Sessions
    member: Member
    foreign_share: float
    """Of a device's memory, that others may hold."""

    def look(self) -> list[Gpu]:
        """Ask the driver and put the answer into this worker's row. Raises NoAnswer."""
        found = gpus.read(self.member.devices)
        if not found:
            return []
        with self.sessions.reading() as session:
            told = [_told_apart(session, gpu) for gpu in found]
        roster.show_gpus(self.sessions.writing, self.member, told)
        return told

    def occupied_by(self) -> str | None:
        """Who holds so much of a device that this worker is to take no job. A driver that does not answer keeps nobody from one."""
        try:
            taken = [gpu for gpu in self.look() if gpu.foreign_share > self.foreign_share]
        except NoAnswer as error:
            log.warning("Whether others are on the GPUs is not known. %s", error)
            return None
        return "; ".join(gpu.occupied_by() for gpu in taken) or None


def _told_apart(session: Session, gpu: Gpu) -> Gpu:
    """Trainers lead a session of their own, in which their children are."""
    ours = {trainer.pid for trainer in orphans.trainers(session)}
    return gpu.model_copy(update={"processes": [each.model_copy(update={"is_ours": _is_of(each.pid, ours)}) for each in gpu.processes]})


def _is_of(pid: int, sessions: set[int]) -> bool | None:
    try:
        return os.getsid(pid) in sessions
    except ProcessLookupError:
        return None
