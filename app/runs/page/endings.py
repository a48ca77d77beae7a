"""Why a stage has ended before its time: what a person reads, where in the log it stands, and what is known to help. Reads only."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from app.jobs import causes
from app.logs import service as logs
from app.logs.plain import Level, Row
from app.models import Job

TAIL = 256 * 1024
"""Bytes of the log in which the line is looked for; it is among the last ones that were printed."""


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
    first, _break, rest = (job.detail or "").partition("\n")
    line = _line(session, job, first) if failed else None
    return Ending(causes.words(job) or "", first or None, rest.strip() or None, causes.hint(job), line)


def _line(session: Session, job: Job, said: str) -> int | None:
    """The last line that holds what was said, else the last that is an error."""
    rows = logs.read(session, job, offset=-TAIL, limit=TAIL, whole_lines=True).rows
    wanted = said.strip()[:120]
    holds: list[Callable[[Row], bool]] = [lambda row: bool(wanted) and wanted in row.text, lambda row: row.level is Level.error]
    return next((row.number for test in holds for row in reversed(rows) if test(row)), None)
