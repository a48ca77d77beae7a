"""Paths that users name. Each must lie below a directory that this installation opens to them, wherever its symbolic links lead."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import panollava
from app import artifacts
from app.errors import Forbidden, Invalid
from app.i18n import _, ngettext
from app.settings import Settings
from panollava.data.index import locate
from panollava.data.table import Problem, Row, listed

SHIPPED = Path(panollava.__file__).resolve().parent
"""The package itself: its demo models may be named like any other."""


def allowed(settings: Settings, field: str, value: str) -> Path:
    """The absolute path, free of symbolic links; it need not exist. Raises Forbidden naming the field, the path and the roots."""
    try:
        path = Path(value).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise Invalid(_("{field}: {value!r} is no path ({error}).").format(field=field, value=value, error=error)) from None
    if reason := why_closed(settings, path):
        raise Forbidden(f"{field}: {path} {reason}.")
    return path


def allowed_artifact(settings: Settings, field: str, value: str) -> str:
    """As `allowed`, of a file that may also lie in this installation's store. Raises Forbidden and Invalid."""
    if not artifacts.is_remote(value):
        return str(allowed(settings, field, value))
    if not artifacts.is_below(value, settings.artifacts):
        raise Forbidden(_("{field}: {value} lies outside of {place}.").format(field=field, value=value, place=settings.artifacts))
    return value


def why_closed(settings: Settings, path: Path) -> str:
    """Why users may not have a path, which is free of symbolic links; empty when they may."""
    roots = [root for root in (*settings.roots, settings.artifacts) if isinstance(root, Path)]
    if any(path.is_relative_to(root) for root in [*roots, SHIPPED]):
        return ""
    return _("lies outside the directories open to users ({roots}; PANOLLAVA_ROOTS adds to them)").format(roots=", ".join(map(str, roots)))


def check_images(settings: Settings, rows: Sequence[Row], table: Path, image_root: str | None) -> None:
    """Raises Forbidden naming the rows whose image lies elsewhere. One that cannot be found is the trainer's to name, with all the others."""
    paths, _missing = locate(rows, table, Path(image_root) if image_root else None)
    check_located(settings, table, rows, paths)


def check_located(settings: Settings, table: Path, rows: Sequence[Row], paths: Mapping[str, Path]) -> None:
    """The same once the files behind the urls are known."""
    closed = {url: reason for url, path in paths.items() if (reason := why_closed(settings, path))}
    wrong = [Problem(row.line, "url", row.url) for row in rows if row.url in closed]
    if wrong:
        text = ngettext("{n} row of {table} shows an image that {why}:", "{n} rows of {table} show an image that {why}:", len(wrong))
        head = text.format(n=f"{len(wrong):,}", table=table, why=closed[wrong[0].message])
        raise Forbidden("\n".join([head, listed([problem.at(table) for problem in wrong])]))


def check_remote(settings: Settings, wanted: bool) -> None:
    """Raises Forbidden for downloads that this installation does not allow."""
    if wanted and not settings.allow_remote:
        raise Forbidden(_("allow_remote: this server downloads no images; PANOLLAVA_ALLOW_REMOTE=1 lets it."))


def shared_cache(settings: Settings) -> dict[str, Any]:
    """The settings by which all runs and evaluations share one cache; with a store each host has its own, below its scratch directory."""
    cache = None if artifacts.is_remote(settings.artifacts) else str(Path(settings.artifacts, "cache"))
    return {"cache_dir": cache, "cache_gb": settings.cache_gb}
