"""Read a table of questions: CSV with `url,query,annotation`, every problem named with its file, line and column.

Text only: whether the images can be read is for `index` and `check`.
"""

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from panollava.errors import BadInput, MissingFile

ALIASES = {"url": ("image", "image_path"), "query": ("instruction",), "annotation": ("response", "caption")}
NO_SUCH_FILE = "no such file"
SHOWN = 20
"""Problems that one message lists; the rest are counted."""


@dataclass(frozen=True)
class Row:
    """One row. `line` is where it starts in the file, counted from 1 with the header, also when cells span several lines."""

    url: str
    query: str
    annotation: str
    line: int


@dataclass(frozen=True)
class Problem:
    """What is wrong in one cell, or in a whole row where `column` is empty."""

    line: int
    column: str
    message: str

    def at(self, path: Path) -> str:
        """`train.csv:7:query: the cell is empty`"""
        return ":".join(str(part) for part in (path, self.line, self.column) if part) + f": {self.message}"


def read_table(path: Path, need_annotation: bool = True) -> list[Row]:
    """All rows of a UTF-8 CSV, cells as they are but for blanks around them. Raises BadInput naming every problem.

    Without `need_annotation`, a missing column or cell is an empty annotation.
    """
    rows, problems = scan(path, need_annotation)
    if problems:
        raise BadInput(listed([problem.at(path) for problem in problems]))
    return rows


def scan(path: Path, need_annotation: bool = True) -> tuple[list[Row], list[Problem]]:
    """The rows that can be used and what is wrong with the others. Raises BadInput for a file that is not CSV in UTF-8 to its end."""
    records = _records(path)
    if not records:
        return [], [Problem(1, "", "the file is empty; it needs a header with url, query, annotation")]
    header = [name.strip() for name in records[0][1]]
    columns, missing = _columns(header, need_annotation)
    if missing:
        return [], missing
    rows, problems = [], []
    for line, cells in records[1:]:
        row, wrong = _parse(line, cells, columns, len(header), need_annotation)
        problems += wrong
        if not wrong:
            rows.append(row)
    if len(records) == 1:
        problems.append(Problem(1, "", "there is a header and no row below it"))
    return rows, problems


def resolve_image(url: str, csv_path: Path, image_root: Path | None = None) -> Path:
    """The file a `url` cell means: below the image root, beside the table, or below the working directory, in this order.

    Raises BadInput when none of them has it, and for http(s) addresses.
    """
    if is_remote(url):
        raise BadInput(f"{url}: remote images are read only with allow_remote; else download them and give paths relative to the image root")
    places = [place for place in (image_root, csv_path.parent, Path()) if place is not None]
    for place in places:
        # os.path, because a cell may hold anything: Path.is_file() raises for a name that is too long.
        if os.path.isfile(candidate := place / url):
            return candidate.resolve()
    raise MissingFile(f"{url}: {NO_SUCH_FILE} below {' or '.join(dict.fromkeys(str(place.resolve()) for place in places))}")


def resolve_in(url: str, csvs: Sequence[Path], image_root: Path | None = None) -> Path:
    """The same for a cell of one of several tables; the first that has such a file. Raises BadInput with what the last one lacks."""
    *others, last = csvs
    for table in others:
        with suppress(BadInput):
            return resolve_image(url, table, image_root)
    return resolve_image(url, last, image_root)


def is_remote(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def normalised(query: str) -> str:
    """What two queries must share to be the same question: their words, whatever the case and the blanks."""
    return " ".join(query.casefold().split())


def listed(problems: Sequence[str]) -> str:
    """The first problems, one a line, and how many more there are."""
    more = len(problems) - SHOWN
    return "\n".join([*problems[:SHOWN], *([f"... and {more:,} more"] if more > 0 else [])])


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Every non-blank record, header first, with the line it starts on."""
    records, start = [], 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    records.append((start, cells))
                start = reader.line_num + 1
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}:{_first_bad_line(path)}: not UTF-8 ({error.reason}); save the file as UTF-8.") from None
    except csv.Error as error:
        raise BadInput(f"{path}:{start}: the row that starts here is no CSV ({error}).") from None
    return records


def _columns(header: Sequence[str], need_annotation: bool) -> tuple[dict[str, int], list[Problem]]:
    """Where url, query and annotation are; a column's own name wins over its aliases."""
    columns, problems = {}, []
    for column, aliases in ALIASES.items():
        own = [position for position, name in enumerate(header) if name.lower() == column]
        found = own or [position for position, name in enumerate(header) if name.lower() in aliases]
        if len(found) == 1:
            columns[column] = found[0]
        elif found:
            problems.append(Problem(1, column, f"{len(found)} columns could be it: {', '.join(header[position] for position in found)}"))
        elif column != "annotation" or need_annotation:
            problems.append(Problem(1, column, f"the column is missing (or {', '.join(aliases)}); found: {', '.join(header)}"))
    return columns, problems


def _parse(line: int, cells: Sequence[str], columns: dict[str, int], width: int, need_annotation: bool) -> tuple[Row, list[Problem]]:
    values = {column: cells[position].strip() if position < len(cells) else "" for column, position in columns.items()}
    needed = [column for column in columns if column != "annotation" or need_annotation]
    problems = [Problem(line, column, "the cell is empty") for column in needed if not values[column]]
    if any(cell.strip() for cell in cells[width:]):
        problems.append(Problem(line, "", f"{len(cells)} cells under {width} columns; a cell with a comma needs quotes around it"))
    return Row(values["url"], values["query"], values.get("annotation", ""), line), problems


def _first_bad_line(path: Path) -> int:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return 1
