"""The check of one table, named by its path, and the pictures it names. Reads files, writes nothing, keeps nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from app.errors import Invalid, NotFound
from app.i18n import _
from app.paths import allowed, why_closed
from app.settings import Settings
from panollava.data.check import SPLITS, Report, check_table
from panollava.data.index import OnProgress
from panollava.data.table import Problem, Row, resolve_image, scan
from panollava.errors import BadInput

SHOWN = 24
"""Panoramas that are shown of a table."""


class Question(BaseModel):
    """What is to be checked, as somebody named it."""

    model_config = ConfigDict(frozen=True)

    csv: str
    image_root: str | None = None
    need_annotation: bool = True


class Split(BaseModel):
    """One of the tables in a directory. Without `rows` it could not be read, and `problem` says why."""

    name: str
    csv: str
    rows: int | None
    problem: str = ""


class Sight(BaseModel):
    """A panorama, with the first row that shows it."""

    url: str
    line: int
    query: str
    annotation: str
    rows: int = Field(description="Rows that show it.")
    problem: str = Field(description="Why it cannot be used; empty when it can.")


class Checked(Report):
    """A report, and what stands around it."""

    question: Question = Field(description="What was checked, with absolute paths.")
    checked_at: datetime
    splits: list[Split] = Field(description="This table and train, valid and test beside it.")
    first: list[Sight] = Field(description="The first panoramas.")


def check(settings: Settings, question: Question, on_progress: OnProgress | None = None) -> Checked:
    """Decode every image of a table. `on_progress` may raise, which ends the check.

    An image outside the roots is an error of its row and is not opened. Raises Forbidden for a path there, Invalid or BadInput for a table
    that cannot be read.
    """
    question = located(settings, question)
    path, root = _paths(question)
    at = datetime.now(UTC)
    rows, _problems = scan(path, question.need_annotation)
    report = check_table(path, root, question.need_annotation, on_progress, partial(why_closed, settings))
    return Checked(**dict(report), question=question, checked_at=at, splits=list(_splits(settings, path)), first=_first(rows, report.errors))


def located(settings: Settings, question: Question) -> Question:
    """The same with absolute paths. Raises Forbidden for one outside the roots and Invalid for one that is not there, each naming the field."""
    if not question.csv:
        raise Invalid(_("csv: name a table."))
    path = allowed(settings, "csv", question.csv)
    if path.is_dir():
        inside = sorted(each.name for each in path.glob("*.csv"))[:10]
        raise Invalid(_("csv: {path} is a directory; name a table in it: {names}.").format(path=path, names=", ".join(inside) or _("it has none")))
    if not path.is_file():
        raise Invalid(_("csv: there is no file {path}.").format(path=path))
    root = allowed(settings, "image_root", question.image_root) if question.image_root else None
    if root and not root.is_dir():
        raise Invalid(_("image_root: there is no directory {path}.").format(path=root))
    return Question(csv=str(path), image_root=root and str(root), need_annotation=question.need_annotation)


def glance(settings: Settings, question: Question) -> None:
    """Raises what a check would raise before it comes to the images."""
    question = located(settings, question)
    scan(Path(question.csv), question.need_annotation)


def image(settings: Settings, question: Question, url: str) -> Path:
    """The file of a panorama that the table names. Raises NotFound for any other, and Forbidden for one outside the roots."""
    path, root = _paths(located(settings, question))
    stat = path.stat()
    if url not in _urls(path, stat.st_mtime_ns, stat.st_size):
        raise NotFound(_("{path} names no image {url}.").format(path=path, url=url))
    try:
        return allowed(settings, "url", str(resolve_image(url, path, root)))
    except BadInput as error:
        raise NotFound(str(error)) from None


@lru_cache(maxsize=8)
def _urls(path: Path, _mtime_ns: int, _size: int) -> frozenset[str]:
    """Remembered until the file changes: a page asks for dozens of pictures."""
    return frozenset(row.url for row in scan(path, need_annotation=False)[0])


def beside(path: Path) -> list[Path]:
    """This table and the other splits in its directory, in the order of a training."""
    names = [f"{stem}.csv" for stem in SPLITS]
    return [each for each in (path.with_name(name) for name in dict.fromkeys([*names, path.name])) if each.is_file()]


def _splits(settings: Settings, path: Path) -> Iterator[Split]:
    """The rows that can be used, whether or not they are annotated."""
    for each in beside(path):
        try:
            rows, _problems = scan(allowed(settings, "csv", str(each)), need_annotation=False)
        except BadInput as error:
            yield Split(name=each.stem, csv=str(each), rows=None, problem=str(error))
        else:
            yield Split(name=each.stem, csv=str(each), rows=len(rows))


def _first(rows: Sequence[Row], errors: Sequence[Problem]) -> list[Sight]:
    """The check names what is wrong with an image at the first row that shows it, which is the row here too."""
    wrong: Mapping[int, str] = {each.line: each.message for each in errors if each.column == "url"}
    counts = Counter(row.url for row in rows)
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.url, row)
    return [
        Sight(url=row.url, line=row.line, query=row.query, annotation=row.annotation, rows=counts[row.url], problem=wrong.get(row.line, ""))
        for row in list(first.values())[:SHOWN]
    ]


def _paths(question: Question) -> tuple[Path, Path | None]:
    return Path(question.csv), Path(question.image_root) if question.image_root else None
