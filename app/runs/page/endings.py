"""Why a stage has ended before its time: what a person reads, where in the log it stands, and what is known to help. Reads only."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from app.i18n import _
from app.logs import service as logs
from app.logs.plain import Level, Row
from app.models import Job

TAIL = 256 * 1024
"""Bytes of the log in which the line is looked for; it is among the last ones that were printed."""
SAID = {
    "out of memory": "OutOfMemoryError",
    "No space left on device": "disk_full",
    "couldn't connect to": "hub_away",
    "loss was not finite": "Diverged",
}
"""What an error says, and the cause that is known by it."""

WORDS = {
    "worker_lost": _("It was lost with its worker"),
    "bad_input": _("It refused its input"),
    "out_of_memory": _("It ran out of memory"),
    "OutOfMemoryError": _("It ran out of memory"),
    "Diverged": _("The training diverged"),
    "disk_full": _("The disk is full"),
    "hub_away": _("The hub with its models does not answer"),
    "RankLost": _("One of its processes ended"),
    "no_result": _("It left no result behind"),
    "no_outcome": _("It ended without saying how"),
    "exit_code": _("The trainer crashed"),
    "signal": _("The trainer was killed from outside"),
    "abandoned": _("Its worker was gone for too long, so it saved and left"),
    "infrastructure": _("Its worker could not go on"),
    "missing_file": _("The store has not got what it needs"),
    "not_stored": _("It was stopped while the store did not answer"),
    "killed": _("It was stopped, and killed because it did not end in time"),
    "stopped": _("It was stopped"),
    "stop_requested": _("It was stopped while it waited"),
    "lost_while_stopping": _("It was to stop, and was gone together with its worker, or killed, before it had said that it had saved"),
}
HINTS = {
    "worker_lost": _("Look whether the worker's machine has enough memory and stays awake; its log says more. Resuming starts to count anew."),
    "bad_input": _("Mend what the message names and resume; if it is a setting, duplicate the run with another value."),
    "out_of_memory": _("Duplicate the run with one of the settings that it names, or with auto_batch."),
    "OutOfMemoryError": _("Duplicate the run with a smaller batch_size, or with precision bf16; fewer views and shorter texts help too."),
    "disk_full": _("Make room, or let a run keep fewer checkpoints; then resume: the checkpoint before is whole."),
    "hub_away": _("Fetch the models with `hf download` where there is a network, or name local directories; then resume."),
    "Diverged": _("Duplicate the run with a smaller lr, a longer warm-up or a smaller grad_clip."),
    "RankLost": _(
        "Look into the log for what it said; killed without a word, most often the machine itself ran out of memory: use fewer num_workers."
    ),
    "no_result": _("The trainer said that it had succeeded, but its best checkpoint is missing or torn: look at the disk."),
    "signal": _("Most often the machine itself ran out of memory: use fewer num_workers or a smaller batch_size."),
    "missing_file": _("Start it from another checkpoint: duplicate the run."),
    "not_stored": _("The host that is named uploads the rest when the store answers again; a resume after that goes on from there."),
    "abandoned": _("Look why no worker with its devices was started again on its machine. Resuming starts to count anew."),
    "infrastructure": _("This is not the run's own fault: a full disk or a defect of ours. Resume when it is mended."),
}


@dataclass(frozen=True)
class Ending:
    """How a stage ended that failed or was stopped."""

    words: str
    said: str | None
    """The first line of what is known of it."""
    more: str | None
    hint: str | None
    line: int | None
    """Number of the line of the log in which it stands."""


def explain(session: Session, job: Job, failed: bool) -> Ending:
    """For a job that has failed or was stopped."""
    reason = job.reason or ""
    is_told = reason in HINTS and reason != "infrastructure"  # which names nobody's fault, and may well be a full disk
    known = reason if is_told else _known(job.detail or "") or reason
    first, _break, rest = (job.detail or "").partition("\n")
    line = _line(session, job, first) if failed else None
    return Ending(WORDS.get(known, reason), first or None, rest.strip() or None, HINTS.get(known), line)


def _known(detail: str) -> str | None:
    return next((cause for words, cause in SAID.items() if words.lower() in detail.lower()), None)


def _line(session: Session, job: Job, said: str) -> int | None:
    """The last line that holds what was said, else the last that is an error."""
    rows = logs.read(session, job, offset=-TAIL, limit=TAIL, whole_lines=True).rows
    wanted = said.strip()[:120]
    holds: list[Callable[[Row], bool]] = [lambda row: bool(wanted) and wanted in row.text, lambda row: row.level is Level.error]
    return next((row.number for test in holds for row in reversed(rows) if test(row)), None)
