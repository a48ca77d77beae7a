"""Tables that a person may mean: those of earlier runs, and those that lie below the roots. Suggestions only; any other can be named."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app import search
from app.models import Run
from app.settings import Settings
from panollava.config import RunConfig
from panollava.data.table import ALIASES

MOST = 200
ENTRIES = 50_000
"""Names that are looked at before the search is given up; about a tenth of a second."""
RUNS = 50
SPLITS = ("csv_train", "csv_val")


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
        paths = tuple(dict.fromkeys(path for field in SPLITS for path in paths_of(run.config, field)))
        root = run.config.get("image_root")
        if paths:
            tables.setdefault((paths, root), Used(paths, root, run))
    return list(tables.values())


def paths_of(config: Mapping[str, Any], field: str) -> list[Path]:
    """The tables of a split in a stored config; one that was stored before a split could have several is a string."""
    return [Path(path) for path in RunConfig.model_validate({field: config.get(field)}).model_dump()[field]]


def below(settings: Settings) -> list[Found]:
    """The tables below the roots, by directory, those nearest to a root first."""
    return among(search.files(settings, ENTRIES, is_csv))


def is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")


def among(paths: Iterable[Path]) -> list[Found]:
    """CSV files whose header could be that of a table, by directory, in the order in which they come; the first line of each is read."""
    found: dict[Path, list[Path]] = {}
    for path in islice(filter(_could_be_table, paths), MOST):
        found.setdefault(path.parent, []).append(path)
    return [Found(directory, tuple(sorted(paths))) for directory, paths in found.items()]


def _could_be_table(path: Path) -> bool:
    """Whether its first line names an image and a query, under one name or another."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = {name.strip().lower() for name in next(csv.reader([file.readline(4096)]), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # no table to suggest; who names it is told what is wrong with it
    return all(names & {column, *ALIASES[column]} for column in ("url", "query"))
