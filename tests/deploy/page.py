"""docs/deploy.md as a reader types it: its blocks of commands and files, by the comment that each begins with."""

import re
from configparser import ConfigParser
from pathlib import Path

from app.jobs.stopping import KILL_AFTER, TERM_AFTER
from worker.exchange import LAST_SECONDS

DRAIN_SECONDS = TERM_AFTER + KILL_AFTER + LAST_SECONDS
"""Most that a worker needs to leave, the upload of its last checkpoint left out."""
PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
_BLOCK = re.compile(r"^    # (?P<title>.+)\n(?P<lines>(?:(?:    .*)?\n)+)", re.MULTILINE)
_UNITS = "/etc/systemd/system/"


def blocks() -> dict[str, str]:
    """In the page's order."""
    return {found["title"]: re.sub("^    ", "", found["lines"], flags=re.MULTILINE).strip() + "\n" for found in _BLOCK.finditer(PAGE.read_text())}


def units() -> dict[str, str]:
    """systemd's files, by name."""
    return {title.removeprefix(_UNITS): text for title, text in blocks().items() if title.startswith(_UNITS)}


def service(name: str) -> dict[str, str]:
    """What a unit's section [Service] says. Raises where a line is no setting, or one comes twice."""
    parser = ConfigParser(interpolation=None, comment_prefixes=("#", ";"), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(units()[name])
    assert parser.sections() == ["Unit", "Service", "Install"]
    return dict(parser["Service"])
