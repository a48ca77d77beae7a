"""The known causes of a failure, by the machine words that events, jobs and the API bear, and the one place that tells which an error is.

Knows nothing of what is done about one: whether a job is tried again is for the worker, the words for a person are in `app.jobs.causes`. Torch-free.
"""

import errno
import re
from collections.abc import Iterator
from enum import StrEnum

from panollava.errors import BadInput, OutOfMemory


class Cause(StrEnum):
    """Why a training, an evaluation or an export ended in a failure."""

    out_of_memory = "out_of_memory"
    """The device's."""
    out_of_host_memory = "out_of_host_memory"
    """The machine's, or that of the cgroup."""
    disk_full = "disk_full"
    """Or a quota is used up."""
    diverged = "diverged"
    """Loss or gradients were no numbers any more."""
    missing_file = "missing_file"
    hub_away = "hub_away"
    """A model is not on this machine, and the hub cannot be asked, or not now."""
    bad_config = "bad_config"
    bad_input = "bad_input"


BY_NUMBER = {errno.ENOSPC: Cause.disk_full, errno.EDQUOT: Cause.disk_full, errno.ENOMEM: Cause.out_of_host_memory}
BY_NAME = {
    "OutOfMemoryError": Cause.out_of_memory,
    "MemoryError": Cause.out_of_host_memory,
    "DiskFull": Cause.disk_full,
    "Diverged": Cause.diverged,
    "MissingFile": Cause.missing_file,
    "FileNotFoundError": Cause.missing_file,
    "HubAway": Cause.hub_away,
    "LocalEntryNotFoundError": Cause.hub_away,
    "OfflineModeIsEnabled": Cause.hub_away,
    "ValidationError": Cause.bad_config,
}
"""By the name of an exception, because some are torch's, and the events of older trainers hold only names."""
SAYS = {
    Cause.out_of_memory: re.compile(r"(CUDA|HIP)( error:)? out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"),
    Cause.out_of_host_memory: re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|\[Errno 12\]|^MemoryError\b", re.MULTILINE),
    Cause.disk_full: re.compile(r"No space left on device|Disk quota exceeded"),
    Cause.diverged: re.compile(r"(loss|gradient) was (not finite|finite in none)"),
    Cause.missing_file: re.compile(r"[Nn]o such (file|directory|checkpoint)\b"),
    Cause.hub_away: re.compile(r"couldn't connect to '?https?://|LocalEntryNotFoundError"),
}
"""What an error says by which its cause is known, whatever it is called."""
_IN_A_LOADER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")
_TRACEBACK = "Traceback (most recent call last):"


def word(error: BaseException) -> str:
    """What a failure is called: its known cause, else the name of its exception."""
    return of(error) or type(error).__name__


def of(error: BaseException) -> Cause | None:
    """The known cause of an error, which may be what it was raised from."""
    chain = list(_chain(error))
    if known := next((cause for each in chain if (cause := own(each))), None):
        return known
    if bad := next((each for each in chain if isinstance(each, BadInput)), None):
        return Cause.bad_config if bad.fields else Cause.bad_input
    return None


def said(error: BaseException) -> str:
    """What it says, for a person. What a process that loads images has said comes first, before that it was one."""
    text = str(error) or repr(error)
    return f"{text.rstrip().splitlines()[-1]}\n{text}" if _IN_A_LOADER.match(text) else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It and what it was raised from. A refusal often hides that from its reader (`from None`), not from us."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (seen.__context__ if isinstance(seen, BadInput | OSError) else None)


def own(error: BaseException) -> Cause | None:
    """What an error itself says, whatever it was raised from. Of a refusal only what is known better than that it is one."""
    if isinstance(error, OutOfMemory):
        return Cause.out_of_host_memory if error.is_host else Cause.out_of_memory
    if isinstance(error, OSError) and error.errno in BY_NUMBER:
        return BY_NUMBER[error.errno]
    if known := next((BY_NAME[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in BY_NAME), None):
        return known
    return _said(str(error)) if isinstance(error, RuntimeError | OSError) else None  # which libraries and data loaders make of any other


def named(reason: str, detail: str = "") -> str:
    """The same for what was written down: a word or the name of an exception, and what it said. An unknown one stays as it is."""
    if reason in set(Cause):
        return reason
    return BY_NAME.get(reason) or _said(detail) or reason


def printed(log: str) -> tuple[Cause | None, str | None]:
    """The cause that the end of a log tells, and the line that does: the error of its last traceback, whatever it is, else its last line."""
    _before, mark, after = log.rpartition(_TRACEBACK)
    lines = [line for line in after.splitlines() if line and not line[0].isspace()]
    told = next(((cause, line) for line in (lines if mark else lines[-1:]) if (cause := _said(line))), None)
    return told or (None, lines[0] if mark and lines else None)


def _said(text: str) -> Cause | None:
    return next((cause for cause, said in SAYS.items() if said.search(text)), None)
