"""How an attempt ended: the trainer's last word and its exit code, judged together. Neither is trusted alone.

What the trainer itself came to, a result, a stop, an exception, is the job's end. A trainer that was killed, or that lost its
worker, is `lost`: that says nothing against the run, and the next attempt goes on from the last checkpoint.
"""

import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.jobs.causes import signal_name
from app.models import JobStatus
from panollava import causes
from panollava.causes import Cause
from panollava.events import ABANDONED, StageEvent

SUCCEEDED, BAD_INPUT, STOPPED = 0, 2, 75
"""Exit codes of the trainer; every other one is a failure without a name."""
OWN_FAULTS = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}
"""Signals that a program brings upon itself: it would do so again in the next attempt."""
NO_ROOM = "There is no room on the disk for what the trainer writes: neither for its checkpoints nor for its last words."
STARVED = "The kernel killed {what} because memory ran out: it has counted so for this worker's cgroup."
MAY_BE_STARVED = "The kernel may have done it because memory ran out: here nobody says so, its own log does (dmesg)."
NOT_STARVED = "It was not the kernel for want of memory: it has counted no such kill in this worker's cgroup."
KILLED = re.compile(r"SIGKILL|killed by signal")
LAST_LINES = 20
LAST_BYTES = 16 * 1024


@dataclass(frozen=True)
class Outcome:
    status: JobStatus
    reason: str
    detail: str | None = None
    best: str | None = None
    """Best checkpoint of a stage that succeeded, relative to the attempt's directory."""


LOST = Outcome(JobStatus.lost, "worker_lost")


def judge(
    word: StageEvent | None, code: int | None, log: str, *, asked: bool = False, killed: bool = False,
    ran_out_of_memory: bool | None = None, has_room: bool = True,
) -> Outcome:  # fmt: skip
    """`asked` says that it was to stop, `killed` that we killed it because it did not in time.

    `code` is None for a process that was not our child: nobody has seen how it ended, so its last word counts alone.
    `ran_out_of_memory`: whether the kernel has killed a process here for that meanwhile; None where it does not say.
    """
    said = word.status if word else None
    if word and said == "succeeded" and code in (SUCCEEDED, None):
        return Outcome(JobStatus.succeeded, "succeeded", best=word.best)
    if word and said == "stopped" and code in (STOPPED, None):
        return _stopped(word, by_us=asked or code == STOPPED)
    if word and said == "failed":
        return _failed(word, log, bool(ran_out_of_memory))
    if asked and (killed or code in (-signal.SIGTERM, None)):
        return Outcome(JobStatus.stopped, "killed", "It had not ended in time and was killed.")
    if code is None:
        return LOST
    if not has_room and (code > 0 or code == -signal.SIGBUS):
        return Outcome(JobStatus.failed, Cause.disk_full, f"{NO_ROOM}\n{log}".strip())
    return _killed(-code, log, ran_out_of_memory) if code < 0 else _nameless(said, code, log)


def _stopped(word: StageEvent, *, by_us: bool) -> Outcome:
    """One that was stopped by a worker that is gone since is to go on."""
    if word.reason == ABANDONED:
        return Outcome(JobStatus.lost, ABANDONED)
    if not by_us:
        return LOST
    return Outcome(JobStatus.stopped, "stopped")


def _failed(word: StageEvent, log: str, ran_out_of_memory: bool) -> Outcome:
    """What it named itself, unless it is only that a process of its own was killed, and the kernel says why."""
    reason, detail = causes.named(word.reason or "failed", word.detail or ""), word.detail or log
    if ran_out_of_memory and reason not in set(Cause) and KILLED.search(detail):
        return Outcome(JobStatus.lost, Cause.out_of_host_memory, f"{STARVED.format(what='a process of the trainer')}\n{detail}")
    return Outcome(JobStatus.failed, reason, detail)


def _killed(number: int, log: str, ran_out_of_memory: bool | None) -> Outcome:
    """By a signal that we did not send."""
    what = f"The trainer was killed by {signal_name(number)}, which we did not send."
    if number in OWN_FAULTS:
        return Outcome(JobStatus.failed, "crashed", f"{what}\n{log}".strip())
    if number != signal.SIGKILL:
        return Outcome(JobStatus.lost, "signal", f"{what}\n{log}".strip())
    if ran_out_of_memory:
        return Outcome(JobStatus.lost, Cause.out_of_host_memory, f"{STARVED.format(what='the trainer')}\n{log}".strip())
    more = MAY_BE_STARVED if ran_out_of_memory is None else NOT_STARVED
    return Outcome(JobStatus.lost, "signal", f"{what} {more}\n{log}".strip())


def _nameless(said: str | None, code: int, log: str) -> Outcome:
    """An end that the trainer did not report itself: what its log says of it."""
    if code == SUCCEEDED:
        what = "The trainer ended without an error and without saying that it had succeeded."
        return Outcome(JobStatus.failed, "no_outcome", f"{what}\n{log}".strip())
    cause, line = causes.printed(log)
    what = f"The trainer ended with exit status {code}; the last it had said was {said!r}."
    if code == BAD_INPUT:
        cause, what = cause or Cause.bad_input, "The trainer refused its input."
    return Outcome(JobStatus.failed, cause or "exit_code", "\n".join(filter(None, (line, what, log))))


def last_word(path: Path) -> StageEvent | None:
    """The last stage event of an events file. A torn line is no word, and neither is one that says nothing known."""
    if not path.exists():
        return None
    word = None
    with path.open("rb") as file:
        for line in file:
            if b'"type":"stage"' in line:  # a text that holds this has its quotes escaped
                with suppress(ValueError):
                    word = StageEvent.model_validate_json(line)
    return word


def last_lines(path: Path, count: int = LAST_LINES) -> str:
    """The end of a log, for a person. A progress bar is folded to its last drawing."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join([line for line in lines if line.strip()][-count:])
