"""The workers: who lives, whether all are of one version, whether each queue with jobs is served, and whose the devices are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from socket import gethostname

from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from app import db, doorbell
from app.formats import duration
from app.housekeeping.doctor import machine
from app.housekeeping.doctor.finding import Finding
from app.i18n import _, ngettext
from app.jobs.states import PATIENCE, is_lost
from app.models import ACTIVE, Job, JobStatus, Worker
from panollava import __version__

FORGOTTEN = timedelta(days=1)
"""A worker that was silent for longer has left, whatever its row says."""


def check(engine: Engine) -> Iterator[Finding]:
    with db.session_factory(engine, read_only=True)() as session:
        now = db.now(session)
        rows = session.exec(select(Worker).where(col(Worker.stopped_at).is_(None)).order_by(Worker.name)).all()
        alive = [row for row in rows if now - row.heartbeat_at <= PATIENCE]
        silent = [row for row in rows if PATIENCE < now - row.heartbeat_at <= FORGOTTEN]
        yield from _living(alive, silent, now)
        yield from _queues(session, alive)
        yield from _lost(session, now)
    yield from _devices([row for row in alive if row.host == gethostname()])


def check_one(engine: Engine, name: str) -> Finding:
    with db.session_factory(engine, read_only=True)() as session:
        row, now = session.exec(select(Worker).where(Worker.name == name)).first(), db.now(session)
    do = _("look at its log and start it again; what it was at goes on")
    if row is None or row.stopped_at:
        return Finding("worker", "fail", _("no worker named {name} is at work").format(name=name), do)
    age = now - row.heartbeat_at
    if age > PATIENCE:
        return Finding("worker", "fail", _("{name} is silent for {age}").format(name=name, age=duration(age.total_seconds())), do)
    return Finding("worker", "ok", _("{name} was heard of {age} ago").format(name=name, age=duration(age.total_seconds())))


def _living(alive: Sequence[Worker], silent: Sequence[Worker], now: datetime) -> Iterator[Finding]:
    for row in alive:
        text = _("{name} on {host}: {queue}, heard {age} ago, version {version}")
        told = text.format(name=row.name, host=row.host, queue=row.queue, age=duration((now - row.heartbeat_at).total_seconds()), version=row.version)
        do = "" if row.version == __version__ else _("this program is {version}; bring all to one version").format(version=__version__)
        yield Finding("workers", "warn" if do else "ok", told, do)
    for row in silent:
        text = _("{name} on {host} (pid {pid}) is silent for {age}")
        told = text.format(name=row.name, host=row.host, pid=row.pid, age=duration((now - row.heartbeat_at).total_seconds()))
        yield Finding("workers", "warn", told, _("look at its log and start it again; what it was at goes on"))
    if not alive:
        yield Finding("workers", "warn", _("no worker lives"), _("`panollava up`, or `panollava worker` on a machine with a GPU"))


def _queues(session: Session, alive: Sequence[Worker]) -> Iterator[Finding]:
    """Jobs that wait, by how many devices they need."""
    served = Counter(len(row.devices) for row in alive)
    waiting = select(Job.devices, func.count()).where(Job.status == JobStatus.queued).group_by(col(Job.devices)).order_by(col(Job.devices))
    for devices, count in session.exec(waiting):
        jobs = ngettext("{n} job waits", "{n} jobs wait", count).format(n=count)
        if workers := served.pop(devices, 0):
            text = ngettext("{jobs} for {queue}, served by {n} worker", "{jobs} for {queue}, served by {n} workers", workers)
            yield Finding("queue", "ok", text.format(jobs=jobs, queue=doorbell.queue(devices), n=workers))
        else:
            text = _("{jobs} for {queue}, which no worker serves").format(jobs=jobs, queue=doorbell.queue(devices))
            do = ngettext("start a worker that owns {n} device", "start a worker that owns {n} devices (--devices)", devices)
            yield Finding("queue", "fail", text, do.format(n=devices))
    if served:
        yield Finding("queue", "ok", _("served and empty: {queues}").format(queues=", ".join(map(doorbell.queue, sorted(served)))))


def _lost(session: Session, now: datetime) -> Iterator[Finding]:
    for job in session.exec(select(Job).where(col(Job.status).in_(ACTIVE)).order_by(col(Job.id))):
        if is_lost(job, now) and job.heartbeat_at:
            text = _("job {id} (run {run}) is silent for {age}")
            told = text.format(id=job.id, run=job.run_id, age=duration((now - job.heartbeat_at).total_seconds()))
            yield Finding(
                "jobs", "warn", told, _("a worker of its machine goes on with it; one from a terminal is heard of when it is imported again")
            )


def _devices(here: Sequence[Worker]) -> Iterator[Finding]:
    """Of this machine, as its driver and as its workers' rows have them."""
    found = machine.devices()
    if machine.driver_is_silent():
        yield Finding("devices", "fail", _("nvidia-smi is there and lists no device"), _("mend the driver; workers would train on the CPU"))
    owned = Counter(device for row in here for device in set(row.devices))
    problems = {
        _("{device} belongs to {n} workers"): [device for device, n in owned.items() if n > 1 and device != "cpu"],
        _("{device} belongs to a worker and is not there"): [device for device in owned if device not in {*found, "cpu"}],
    }
    for text, devices in problems.items():
        for device in devices:
            yield Finding("devices", "fail", text.format(device=device, n=owned[device]), _("restart the workers with other --devices"))
    idle = [device for device in found if device not in owned]
    if here and idle:
        told = _("{devices}: no worker of this machine owns them").format(devices=", ".join(idle))
        yield Finding("devices", "warn", told, _("`panollava worker --devices {devices}`").format(devices=",".join(idle)))
    if not any(problems.values()) and not (here and idle):
        yield Finding("devices", "ok", ", ".join(found))
