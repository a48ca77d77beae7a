"""What a person reads of a trainer's output: lines without colours and cursor moves, progress bars in their last state, levels.

The bytes in the database stay as they came. static/js/log-text.js does the same for the log dock, with colours; what tells a level it is
given from here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f](?:(?<=\x1b)(?:"
    r"\[[0-?]*[ -/]*[@-~]?"  # colours, cursor moves, erasing; the end may not have been printed yet
    r"|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # titles, links
    r"|[ -/]*[0-~]))?"
)


def strip(text: str) -> str:
    """Text without what steers a terminal. Tabs, line ends and carriage returns stay."""
    return _CONTROL.sub("", text)


def states(line: str) -> list[str]:
    """What stood on the line one after the other: a progress bar returns to its start for every state. At least one."""
    return [state for state in strip(line).split("\r") if state] or [""]


def shown(line: str) -> str:
    """What stands on the line in the end."""
    return states(line)[-1]


class Level(StrEnum):
    warning = "warning"
    error = "error"


_RANK = r"^(?:\[\w+\]: ?)?"  # torchrun says which process printed a line
PATTERNS = (
    (
        Level.error,
        rf"\b(?:ERROR|CRITICAL)\b|\bTraceback \(most recent call last\)|{_RANK}(?:\d\d:\d\d:\d\d [EC] |[\w.]*(?:Error|Exception)(?::|$))",
    ),
    (Level.warning, rf"\bWARN(?:ING)?\b|\b\w*Warning: |{_RANK}\d\d:\d\d:\d\d W "),
)
"""What a line of a level holds; the first that is found counts. Browsers read them too, so they hold only what JavaScript has as well."""
_SAYS = {level: re.compile(pattern, re.ASCII) for level, pattern in PATTERNS}  # as in JavaScript, \w and \d are ASCII
_HINTS = {Level.error: ("ERROR", "CRITICAL", "Error", "Exception", "Traceback", " E ", " C "), Level.warning: ("WARN", "Warning: ", " W ")}
"""One of them is in every line that says its level."""


def may_say(text: str, level: Level) -> bool:
    """A quick no for many lines at once."""
    return any(hint in text for hint in _HINTS[level])


def says(line: str, level: Level) -> bool:
    """Whether a line without colours is of that level.

    A warning holds WARN, WARNING or a Python category (`UserWarning: `), an error holds ERROR, CRITICAL, the head of a traceback, or begins
    with the name of an exception. The trainer's own lines say it by a letter behind the time: `12:00:00 W `, E or C.
    """
    return _SAYS[level].search(line) is not None


@dataclass(frozen=True)
class Row:
    """A line as a page shows it."""

    number: int
    text: str
    level: Level | None


def rows(text: str, first: int) -> Iterator[Row]:
    """The lines of a piece of output, whose first has that number."""
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), first):
        end = shown(line)
        yield Row(number, end, next((level for level in _SAYS if says(end, level)), None))
