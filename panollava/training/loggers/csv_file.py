"""metrics.csv: a line `step,name,value` for each value, so that a name that comes later changes no line before it."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from panollava import rundir
from panollava.training.loggers.base import Logger, Place

METRICS_FILE = "metrics.csv"
HEADER = ("step", "name", "value")


class CsvFile(Logger):
    """The file is opened for each step, so a full disk is heard of at once and nothing is left to be closed."""

    def __init__(self, place: Place) -> None:
        self._path = place.directory / METRICS_FILE
        kept = _rows_up_to(place.step, place.before / METRICS_FILE) if place.before else ()
        rundir.write_whole(self._path, _lines([HEADER, *kept]))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines((step, name, value) for name, value in values.items()))


def _rows_up_to(step: int, path: Path) -> Iterator[list[str]]:
    """What an attempt before had written up to the step from which this one goes on; a torn last line is beyond it or comes again."""
    if not path.exists():
        return
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    for row in list(csv.reader(whole.splitlines()))[1:]:
        if int(row[0]) <= step:
            yield row


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
