"""Whether what a job writes still finds room, told by writing. A quota is seen only so."""

from pathlib import Path
from tempfile import TemporaryFile

from panollava.causes import Cause, own

PROBE = bytes(64 * 1024)


def has_room(directory: Path) -> bool:
    """False only where the disk itself, or a quota, says that there is none."""
    try:
        with TemporaryFile(dir=directory, buffering=0) as file:
            return file.write(PROBE) == len(PROBE)
    except OSError as error:
        return own(error) is not Cause.disk_full
