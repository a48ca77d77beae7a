"""Sort what a report says into kinds, so that a person sees two missing images among three hundred repeated rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.i18n import _
from panollava.data.check import Report
from panollava.data.table import Problem

SHOWN = 200
"""Issues that a page lists; the rest are counted."""

CELLS, OTHER = "cells", "other"
UNSEEN = ("missing", "closed", "unreadable")
"""Kinds of which there is no picture to show."""
MARKS = (
    ("no such file below", "missing"),
    ("remote images are read only with", "missing"),
    ("lies outside the directories open to users", "closed"),
    ("the 2:1 of a whole panorama", "aspect"),
    ("the same image, query and annotation as in line", "repeated"),
    (": also in ", "shared"),
    ("could not be sought in another split", OTHER),
)
"""A piece of the sentence -> its kind. A test holds them against what the check really says."""
KINDS = {
    "missing": _("Image missing"),
    "closed": _("Image not open"),
    "unreadable": _("Image unreadable"),
    "aspect": _("Not 2:1"),
    CELLS: _("Row not in order"),
    "repeated": _("Repeated row"),
    "shared": _("Shared with another split"),
    OTHER: _("Other"),
}


@dataclass(frozen=True)
class Issue:
    kind: str
    is_error: bool
    problem: Problem

    @property
    def label(self) -> str:
        return KINDS[self.kind]


@dataclass(frozen=True)
class Issues:
    """Those that are shown, how many more there are, and the kinds to choose from with how many each has."""

    shown: Sequence[Issue]
    more: int
    kinds: Sequence[tuple[str, str, int]]
    chosen: str
    total: int


def issues(report: Report, kind: str = "") -> Issues:
    """Errors before warnings, each by line; only those of one kind if it is named and there are any."""
    every = [
        Issue(kind_of(each, is_error), is_error, each) for is_error in (True, False) for each in (report.errors if is_error else report.warnings)
    ]
    counts = Counter(each.kind for each in every)
    chosen = kind if kind in counts else ""
    meant = [each for each in every if chosen in ("", each.kind)]
    kinds = [(name, label, counts[name]) for name, label in KINDS.items() if counts[name]]
    return Issues(meant[:SHOWN], max(0, len(meant) - SHOWN), kinds, chosen, len(every))


def unseen(report: Report) -> set[int]:
    """Lines that are the first with an image of which there is no picture."""
    return {each.line for each in report.errors if kind_of(each, is_error=True) in UNSEEN}


def kind_of(problem: Problem, is_error: bool) -> str:
    for piece, kind in MARKS:
        if piece in problem.message:
            return kind
    if problem.column == "url" and ": " in problem.message:  # after the image's name, in the words of whoever could not decode it
        return "unreadable"
    return CELLS if is_error else OTHER
