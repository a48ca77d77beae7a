"""How an attempt ended: the trainer's last word and its exit code, judged together. Neither is trusted alone."""

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.models import JobStatus
from panollava.events import StageEvent

SUCCEEDED, BAD_INPUT, STOPPED = 0, 2, 75
"""Exit codes of the trainer; every other one is a failure without a name."""
LAST_LINES = 20
LAST_BYTES = 16 * 1024


@dataclass(frozen=True)
class Outcome:
    status: JobStatus
    reason: str
    detail: str | None = None
    best: str | None = None
    """Best checkpoint of a stage that succeeded, relative to the attempt's directory."""


def judge(word: StageEvent | None, code: int, log: str, *, asked: bool, killed: bool) -> Outcome:
    """How our own child ended. `asked` says that it was to stop, `killed` that we killed it because it did not in time."""
    said = word.status if word else None
    if word and said == "succeeded" and code == SUCCEEDED:
        return Outcome(JobStatus.succeeded, "succeeded", best=word.best)
    if word and said == "stopped" and code == STOPPED:
        return Outcome(
            JobStatus.stopped, "stopped", f"Saved at step {word.step}." if word.step else "There had been no step yet, so nothing was saved."
        )
    if word and said == "failed":
        return _failed(word, log)
    if asked and (killed or code == -signal.SIGTERM):
        return Outcome(
            JobStatus.stopped, "killed", "It had not saved in time and was killed; it goes on from the last checkpoint there is, or from the start."
        )
    return _nameless(said, code, log)


def judge_orphan(word: StageEvent | None, log: str) -> Outcome | None:
    """How a process ended whose exit code nobody saw; None if it did not come to its own end."""
    if word and word.status == "succeeded":
        return Outcome(JobStatus.succeeded, "succeeded", best=word.best)
    if word and word.status == "failed":
        return _failed(word, log)
    return None


def _failed(word: StageEvent, log: str) -> Outcome:
    return Outcome(JobStatus.failed, word.reason or "failed", word.detail or log)


def _nameless(said: str | None, code: int, log: str) -> Outcome:
    """A failure that the trainer did not report itself."""
    if code < 0:
        what, reason = f"The trainer was killed by {signal.Signals(-code).name}, which we did not send.", "signal"
    elif code == SUCCEEDED:
        what, reason = "The trainer ended without an error and without saying that it had succeeded.", "no_outcome"
    else:
        what, reason = f"The trainer ended with exit status {code}; the last it had said was {said!r}.", "exit_code"
    if code == BAD_INPUT:
        what, reason = "The trainer refused its input.", "bad_input"
    return Outcome(JobStatus.failed, reason, f"{what}\n{log}".strip())


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
