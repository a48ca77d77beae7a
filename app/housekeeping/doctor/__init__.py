"""`panollava doctor`: looks at every part of the house and says what to do. Changes nothing, and works while parts are down."""

from collections.abc import Iterator

from app.housekeeping.doctor import bell, database, leftovers, machine, versions, workers
from app.housekeeping.doctor.finding import Finding, Level
from app.settings import Settings

__all__ = ["Finding", "Level", "examine", "examine_worker"]


def examine(settings: Settings) -> Iterator[Finding]:
    """What there is to say, one finding after the other; those about workers only where the database can be read."""
    yield from versions.check()
    yield from machine.check_disks(settings)
    yield from machine.check_artifacts(settings)
    yield from bell.check(settings)
    with database.opened(settings) as found:
        yield from found.findings
        if found.engine:
            yield from workers.check(found.engine)
            yield from leftovers.check(found.engine)
        else:
            yield Finding("devices", "ok", ", ".join(machine.devices()))


def examine_worker(settings: Settings, name: str) -> Iterator[Finding]:
    """Whether this worker is heard of: what a health check wants to know. Where the database cannot be read, what it has found of that."""
    with database.opened(settings) as found:
        if found.engine:
            yield workers.check_one(found.engine, name)
        else:
            yield from found.findings
