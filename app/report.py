"""The demo's outcome as one page that needs no server: tables and style in a single file, to look at or to send on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import static
from app.i18n import _
from panollava.rundir import write_whole

Rows = Sequence[Sequence[str]]


def write_report(path: Path, *, comparison: Rows, promises: Rows, kept: bool, places: Mapping[str, object]) -> None:
    """Write the page, whole. Tables are a header and rows of cells."""
    pages = Environment(loader=PackageLoader("templates", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style = Markup((Path(static.__file__ or "").parent / "report.css").read_text())
    page = pages.get_template("report.html").render(
        _=_, style=style, comparison=comparison, promises=promises, kept=kept, places=places
    )  # fmt: skip
    write_whole(path, page)
