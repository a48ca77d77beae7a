"""Whether the kernel has killed somebody here for want of memory: it counts, in cgroup v2, for whoever may read. Reads only."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def kills(mine: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS) -> int | None:
    """How many processes of this one's cgroup it has ever killed for that; None where nobody says so (cgroup v1, the root cgroup)."""
    if not mine.exists():
        return None
    for line in mine.read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        events = cgroups / path.lstrip("/") / "memory.events"
        if not controllers and events.is_file():
            return dict(_counts(events.read_text()))["oom_kill"]
    return None


def _counts(text: str) -> list[tuple[str, int]]:
    return [(name, int(count)) for name, count in (line.split() for line in text.splitlines())]


class Watch:
    """From when a trainer was started."""

    def __init__(self) -> None:
        self._before = kills()

    @property
    def ran_out(self) -> bool | None:
        """Whether somebody has been killed for want of memory since; None where nobody says so."""
        now = kills()
        return None if self._before is None or now is None else now > self._before
