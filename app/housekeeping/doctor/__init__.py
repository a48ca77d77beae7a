"""`panollava doctor`: looks at every part of the house and says what to do. Changes nothing, and works while parts are down."""

from collections.abc import Iterator

from app.housekeeping.doctor import bell, database, leftovers, machine, versions, workers
from app.housekeeping.doctor.finding import Finding, Level
from app.settings import Settings

__all__ = ["Finding", "Level", "examine"]


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
