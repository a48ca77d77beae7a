"""This process's row among the workers: who it is, what it owns, that it lives. Knows no jobs."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import sessionmaker
from sqlmodel import Session, col, select, update

from app import artifacts, db, doorbell
from app.gpus import Gpu
from app.jobs.states import PATIENCE
from app.models import ACTIVE, Attempt, Job, Worker
from panollava import __version__
from panollava.events import EVENTS_FILE
from worker.process import OUTPUT_FILE, Identity

log = logging.getLogger(__name__)


class Taken(Exception):
    """Another living worker has the name, or one of the devices."""


@dataclass(frozen=True)
class Member:
    """A registered worker: its row's id, the process that row speaks of, and where that works."""

    id: int
    name: str
    devices: tuple[str, ...]
    identity: Identity
    scratch: Path | None = None
    """Where its host has its part of artifacts that belong into a store."""


def join(
    writing: sessionmaker[Session], name: str, devices: Sequence[str], patience: timedelta = PATIENCE, scratch: Path | None = None
) -> Member:  # fmt: skip
    """Take the row of this name, or make it. Waits for a worker elsewhere that had it to fall silent; raises Taken if it does not.

    So it does where a living worker of this machine has one of the devices: two trainings on one GPU would fail each other for want of memory.
    """
    identity = Identity.of(os.getpid())
    deadline = time.monotonic() + 1.5 * patience.total_seconds()
    while True:
        with writing.begin() as session:
            db.lock(session, "roster")
            _check_devices(session, name, devices, identity)
            holder = session.exec(select(Worker).where(Worker.name == name)).first()
            if holder is None or identity_of(holder) == identity or not _lives(session, holder, patience):
                return Member(_take(session, holder, name, devices, identity), name, tuple(devices), identity, scratch)
        if identity_of(holder).here or time.monotonic() > deadline:
            raise Taken(f"A worker named {name} runs on {holder.host} (pid {holder.pid}); give this one another --name.")
        log.warning("A worker named %s was heard of on %s a moment ago; waiting until it is silent.", name, holder.host)
        time.sleep(1)


def beat(writing: sessionmaker[Session], member: Member) -> None:
    """Say that this worker lives, and how far it is behind. Raises Taken when its row speaks of another process by now."""
    with writing.begin() as session:
        if not _write(session, member, heartbeat_at=db.now(session), unread=unread(session, member.id, member.scratch)):
            raise Taken(f"Another process has taken the name {member.name}.")


def reach(writing: sessionmaker[Session], member: Member) -> datetime:
    """Now, at which the database took a write of this worker: one that can only be read keeps others from saying that they live."""
    with writing.begin() as session:
        _write(session, member, heartbeat_at=(now := db.now(session)))
    return now


def unread(session: Session, worker_id: int, scratch: Path | None = None) -> int:
    """Bytes that trainers of this worker have written and the database does not hold."""
    query = select(Attempt).join(Job, (col(Job.id) == Attempt.job_id) & (col(Job.attempt) == Attempt.number))
    mine = session.exec(query.where(Job.worker_id == worker_id, col(Job.status).in_(ACTIVE)))
    return sum(_unread(attempt, scratch) for attempt in mine)


def show_gpus(writing: sessionmaker[Session], member: Member, gpus: Sequence[Gpu]) -> None:
    """Say what is on this worker's devices."""
    with writing.begin() as session:
        _write(session, member, gpus=[gpu.model_dump() for gpu in gpus], gpus_at=db.now(session))


def hold_back(writing: sessionmaker[Session], member: Member, why: str | None) -> None:
    """Say why this worker takes no job, or that it takes them again."""
    with writing.begin() as session:
        _write(session, member, held_back=why)


def leave(writing: sessionmaker[Session], member: Member) -> None:
    """Say that this worker has ended of its own will."""
    with writing.begin() as session:
        _write(session, member, stopped_at=db.now(session))


def identity_of(row: Worker) -> Identity:
    return Identity(row.pid, row.pid_started, row.boot_id)


def _check_devices(session: Session, name: str, devices: Sequence[str], identity: Identity) -> None:
    """The CPU is anybody's."""
    wanted = {device for device in devices if device != "cpu"}
    here = select(Worker).where(Worker.name != name, col(Worker.stopped_at).is_(None), Worker.boot_id == identity.boot_id)
    for other in session.exec(here):
        if (both := sorted(wanted & set(other.devices))) and identity_of(other).alive:
            text = "GPU {devices} of this machine belongs to worker {name} (pid {pid}); give this one other --devices, or end that one first."
            raise Taken(text.format(devices=", ".join(both), name=other.name, pid=other.pid))


def _lives(session: Session, holder: Worker, patience: timedelta) -> bool:
    if holder.stopped_at:
        return False
    if identity_of(holder).here:
        return identity_of(holder).alive
    return db.now(session) - holder.heartbeat_at < patience


def _take(session: Session, holder: Worker | None, name: str, devices: Sequence[str], identity: Identity) -> int:
    now = db.now(session)
    values = {
        "name": name, "host": socket.gethostname(), "pid": identity.pid, "pid_started": identity.started, "boot_id": identity.boot_id,
        "queue": doorbell.queue(len(devices)), "devices": list(devices), "version": __version__,
        "started_at": now, "heartbeat_at": now, "stopped_at": None,
        "gpus": [], "gpus_at": None, "held_back": None, "unread": 0,
    }  # fmt: skip
    row = holder.sqlmodel_update(values) if holder else Worker.model_validate(values)
    session.add(row)
    session.flush()
    return row.id


def _unread(attempt: Attempt, scratch: Path | None) -> int:
    read = {EVENTS_FILE: attempt.event_offset, OUTPUT_FILE: attempt.log_offset}
    files = {artifacts.local(attempt.directory, scratch) / name: offset for name, offset in read.items()}
    return sum(max(0, file.stat().st_size - offset) for file, offset in files.items() if file.exists())


def _write(session: Session, member: Member, **values: Any) -> bool:
    """False when the row speaks of another process by now."""
    who = member.identity
    mine = (col(Worker.id) == member.id, col(Worker.pid) == who.pid, col(Worker.pid_started) == who.started, col(Worker.boot_id) == who.boot_id)
    return session.exec(update(Worker).where(*mine).values(**values)).rowcount == 1
