"""Paths that users name. Each must lie below a directory that this installation opens to them, wherever its symbolic links lead."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import panollava
from app.errors import Forbidden, Invalid
from app.i18n import _
from app.settings import Settings
from panollava.data.table import Row, resolve_image
from panollava.errors import BadInput

SHIPPED = Path(panollava.__file__).resolve().parent
"""The package itself: its demo models may be named like any other."""


def allowed(settings: Settings, field: str, value: str) -> Path:
    """The absolute path, free of symbolic links; it need not exist. Raises Forbidden naming the field, the path and the roots."""
    try:
        path = Path(value).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise Invalid(_("{field}: {value!r} is no path ({error}).").format(field=field, value=value, error=error)) from None
    roots = [*settings.roots, settings.artifacts]
    if any(path.is_relative_to(root) for root in [*roots, SHIPPED]):
        return path
    raise Forbidden(
        _("{field}: {path} lies outside the directories open to users: {roots}. PANOLLAVA_ROOTS names more.").format(
            field=field, path=path, roots=", ".join(map(str, roots))
        )
    )


def check_images(settings: Settings, rows: Iterable[Row], table: Path, image_root: str | None) -> None:
    """Raises Forbidden for a row whose image lies elsewhere. One that cannot be found is the trainer's to name, with all the others."""
    checked: set[str] = set()
    for row in rows:
        if row.url in checked:
            continue
        checked.add(row.url)
        with suppress(BadInput):
            allowed(settings, f"{table}:{row.line}:url", str(resolve_image(row.url, table, Path(image_root) if image_root else None)))


def free_directory(path: Path) -> Path:
    """An empty directory of this name, or the next free one: another database may have left files under the same number."""
    number, candidate = 1, path
    while True:
        candidate.mkdir(parents=True, exist_ok=True)
        if not any(candidate.iterdir()):
            return candidate
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
