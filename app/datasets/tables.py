"""Tables that a person may mean: those of earlier runs, and those that lie below the roots. Suggestions only; any other can be named."""

import csv
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlmodel import Session, col, select

from app.models import Run
from app.settings import Settings
from panollava.data.table import ALIASES

DEPTH = 4
MOST = 200
ENTRIES = 50_000
"""Names that are looked at before the search is given up; about a tenth of a second."""
RUNS = 50
SPLITS = ("csv_train", "csv_val")
PASSED_OVER = ("node_modules", "__pycache__", "site-packages")


@dataclass(frozen=True)
class Used:
    """Tables that a run trained on and validated with, and the newest run that did."""

    tables: tuple[Path, ...]
    image_root: str | None
    run: Run

    @property
    def directory(self) -> Path:
        return self.tables[0].parent


@dataclass(frozen=True)
class Found:
    """The tables of one directory."""

    directory: Path
    tables: tuple[Path, ...]


def used(session: Session) -> list[Used]:
    """Of the newest runs, each pair of tables once."""
    tables: dict[tuple[object, ...], Used] = {}
    for run in session.exec(select(Run).order_by(col(Run.id).desc()).limit(RUNS)):
        paths = tuple(dict.fromkeys(Path(run.config[field]) for field in SPLITS if run.config.get(field)))
        root = run.config.get("image_root")
        if paths:
            tables.setdefault((paths, root), Used(paths, root, run))
    return list(tables.values())


def below(settings: Settings, entries: int = ENTRIES, opened: int | None = None) -> list[Found]:
    """CSV files below the roots whose header could be that of a table, by directory, those nearest to a root first.

    At most `entries` names are looked at, and at most `opened` files are read the first line of.
    """
    found: dict[Path, list[Path]] = {}
    count = 0
    for path in islice(_csv_files(settings.roots, settings.artifacts, entries), opened):
        if _could_be_table(path):
            found.setdefault(path.parent, []).append(path)
            count += 1
        if count == MOST:
            break
    return [Found(directory, tuple(sorted(paths))) for directory, paths in found.items()]


def _csv_files(roots: Sequence[Path], artifacts: Path, most: int) -> Iterator[Path]:
    """Breadth first, and only so deep and so many names. Links to directories, hidden ones and what runs wrote are passed over."""
    waiting = deque((root, 0) for root in dict.fromkeys(roots))
    seen, entries = {artifacts}, 0
    while waiting:
        directory, depth = waiting.popleft()
        if directory in seen:
            continue
        seen.add(directory)
        try:
            listing = os.scandir(directory)
        except OSError:
            continue  # one that may not be read, or is gone by now: there is nothing to suggest from it
        with listing:
            for entry in listing:
                entries += 1
                if entries > most:
                    return
                if entry.name.startswith(".") or entry.name in PASSED_OVER:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if depth + 1 < DEPTH:
                        waiting.append((Path(entry.path), depth + 1))
                elif entry.name.lower().endswith(".csv") and entry.is_file():
                    yield Path(entry.path)


def _could_be_table(path: Path) -> bool:
    """Whether its first line names an image and a query, under one name or another."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = {name.strip().lower() for name in next(csv.reader([file.readline(4096)]), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # no table to suggest; who names it is told what is wrong with it
    return all(names & {column, *ALIASES[column]} for column in ("url", "query"))
