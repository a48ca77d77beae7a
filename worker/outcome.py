"""How an attempt ended: the trainer's last word and its exit code, judged together. Neither is trusted alone.

What the trainer itself came to, a result, a stop, an exception, is the job's end. A trainer that was killed, or that lost its
worker, is `lost`: that says nothing against the run, and the next attempt goes on from the last checkpoint.
"""

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.models import JobStatus
from panollava.events import ABANDONED, StageEvent

SUCCEEDED, BAD_INPUT, STOPPED = 0, 2, 75
"""Exit codes of the trainer; every other one is a failure without a name."""
OWN_FAULTS = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}
"""Signals that a program brings upon itself: it would do so again in the next attempt."""
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


def judge(word: StageEvent | None, code: int | None, log: str, *, asked: bool = False, killed: bool = False) -> Outcome:
    """`asked` says that it was to stop, `killed` that we killed it because it did not in time.

    `code` is None for a process that was not our child: nobody has seen how it ended, so its last word counts alone.
    """
    said = word.status if word else None
    if word and said == "succeeded" and code in (SUCCEEDED, None):
        return Outcome(JobStatus.succeeded, "succeeded", best=word.best)
    if word and said == "stopped" and code in (STOPPED, None):
        return _stopped(word, by_us=asked or code == STOPPED)
    if word and said == "failed":
        return _failed(word, log)
    if asked and (killed or code in (-signal.SIGTERM, None)):
        return Outcome(JobStatus.stopped, "killed", "It had not ended in time and was killed.")
    return LOST if code is None else _nameless(said, code, log)


def _stopped(word: StageEvent, *, by_us: bool) -> Outcome:
    """One that was stopped by a worker that is gone since is to go on."""
    if word.reason == ABANDONED:
        return Outcome(JobStatus.lost, ABANDONED)
    if not by_us:
        return LOST
    return Outcome(JobStatus.stopped, "stopped")


def _failed(word: StageEvent, log: str) -> Outcome:
    return Outcome(JobStatus.failed, word.reason or "failed", word.detail or log)


def _nameless(said: str | None, code: int, log: str) -> Outcome:
    """An end that the trainer did not report itself."""
    status = JobStatus.failed
    if code < 0:
        status = JobStatus.failed if -code in OWN_FAULTS else JobStatus.lost
        what, reason = f"The trainer was killed by {_name(-code)}, which we did not send.", "signal"
    elif code == SUCCEEDED:
        what, reason = "The trainer ended without an error and without saying that it had succeeded.", "no_outcome"
    else:
        what, reason = f"The trainer ended with exit status {code}; the last it had said was {said!r}.", "exit_code"
    if code == BAD_INPUT:
        what, reason = "The trainer refused its input.", "bad_input"
    return Outcome(status, reason, f"{what}\n{log}".strip())


def _name(number: int) -> str:
    """Most real-time signals have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


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
