"""Look through a table and its images before anything is trained on them, and report everything that is wrong or odd.

Text is counted in words: tokens depend on a language model, and none is loaded here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from panollava.data.images import ASPECT_ERROR, ASPECT_WARNING, BadImage, Picture, Reading, off_aspect
from panollava.data.index import Fetch, OnProgress, WhyClosed, decode, locate, why_unusable
from panollava.data.table import Problem, Row, listed, normalised, scan
from panollava.errors import BadInput

SPLITS = ("train", "valid", "val", "test")
"""Stems of tables that should not share images with one of the others beside them."""

Decoded = Picture | BadImage


class Report(BaseModel):
    """What a table holds and what is wrong with it. Only errors make it unusable."""

    model_config = ConfigDict(frozen=True)

    csv: str
    rows: int = Field(description="Rows whose cells are in order.")
    images: int = Field(description="Different files that these rows name.")
    sizes: dict[str, int] = Field(description="How many images have so many pixels, as WIDTHxHEIGHT, the most frequent first.")
    groups: int = Field(description="Different questions, that is pairs of image and query.")
    references: dict[int, int] = Field(description="How many questions have so many references.")
    words: dict[int, int] = Field(description="How many annotations have so many words.")
    errors: list[Problem]
    warnings: list[Problem]

    def __str__(self) -> str:
        """For a terminal: errors, warnings, then the counts."""
        lines = [f"error: {each.at(Path(self.csv))}" for each in self.errors]
        odd = [f"warning: {each.at(Path(self.csv))}" for each in self.warnings]
        references = ", ".join(f"{size} x {count:,}" for size, count in self.references.items())
        words = f"{min(self.words)} to {max(self.words)}" if self.words else "none"
        return "\n".join([
            *([listed(lines)] if lines else []), *([listed(odd)] if odd else []),
            f"{self.csv}: rows {self.rows:,}, images {self.images:,}, questions {self.groups:,}",
            f"references per question: {references or 'none'}; words per annotation: {words}",
            f"errors: {len(self.errors):,}, warnings: {len(self.warnings):,}",
        ])  # fmt: skip


def check_table(
    csv: Path,
    image_root: Path | None = None,
    need_annotation: bool = True,
    on_progress: OnProgress | None = None,
    why_closed: WhyClosed | None = None,
    *,
    partial: bool = False,
    fetch: Fetch | None = None,
) -> Report:
    """Read every row and decode every image that is not closed to us. `partial`: a part of a panorama is no error.

    Raises BadInput only for a file that is no CSV.
    """
    rows, errors = scan(csv, need_annotation)
    paths, missing = locate(rows, csv, image_root, why_closed, fetch)
    images = list(dict.fromkeys(paths.values()))
    decoded = dict(zip(images, decode(images, on_progress, reading=Reading(partial=partial)), strict=True))
    bad, odd = _look_at_images(rows, paths, missing, decoded, partial)
    sizes = Counter(f"{each.width}x{each.height}" for each in decoded.values() if isinstance(each, Picture))
    groups = Counter((paths.get(row.url, row.url), normalised(row.query)) for row in rows)
    return Report(
        csv=str(csv), rows=len(rows), images=len(images), sizes=dict(sizes.most_common()), groups=len(groups),
        references=_histogram(groups.values()), words=_histogram(len(row.annotation.split()) for row in rows if row.annotation),
        errors=_by_line([*errors, *bad]), warnings=_by_line([*odd, *_duplicates(rows, paths), *_leaks(csv, image_root, rows, paths)]),
    )  # fmt: skip


def _look_at_images(
    rows: Sequence[Row], paths: Mapping[str, Path], missing: Mapping[str, str], decoded: Mapping[Path, Decoded], partial: bool
) -> tuple[list[Problem], list[Problem]]:
    """Errors and warnings about each different url, at the first row that has it."""
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row.url, []).append(row.line)
    errors, warnings = [], []
    for url, (first, *others) in lines.items():
        more = f" ({len(others) + 1:,} rows)" if others else ""
        found = decoded[paths[url]] if url in paths else None
        if found is None:
            errors.append(Problem(first, "url", missing[url] + more))
        elif reason := why_unusable(found, partial):
            errors.append(Problem(first, "url", f"{url}: {reason}{more}"))
        elif isinstance(found, Picture) and (odd := _odd(found)):
            warnings.append(Problem(first, "url", f"{url}: {odd}{more}"))
    return errors, warnings


def _odd(picture: Picture) -> str:
    """What is remarkable about the shape of an image that can be used; empty for a whole panorama."""
    off = off_aspect(picture.width, picture.height)
    if off > ASPECT_ERROR:
        return f"{picture.width} x {picture.height} pixels are taken for a part of a panorama; the rest is black"
    return f"{picture.width} x {picture.height} pixels are not quite the 2:1 of a whole panorama" if off > ASPECT_WARNING else ""


def _duplicates(rows: Sequence[Row], paths: Mapping[str, Path]) -> Iterator[Problem]:
    seen: dict[tuple[object, ...], int] = {}
    for row in rows:
        key = (paths.get(row.url, row.url), normalised(row.query), row.annotation)
        if (first := seen.setdefault(key, row.line)) != row.line:
            yield Problem(row.line, "", f"the same image, query and annotation as in line {first}")


def _leaks(csv: Path, image_root: Path | None, rows: Sequence[Row], paths: Mapping[str, Path]) -> Iterator[Problem]:
    """Images that another split beside this one shows too."""
    if csv.stem not in SPLITS:
        return
    lines = {paths[row.url]: row.line for row in reversed(rows) if row.url in paths}
    for sibling in (csv.with_name(f"{stem}.csv") for stem in SPLITS if stem != csv.stem):
        if not sibling.is_file():
            continue
        try:
            theirs, _ = locate(scan(sibling, need_annotation=False)[0], sibling, image_root)
        except BadInput as error:
            yield Problem(1, "", f"shared images could not be sought in another split: {error}")
            continue
        for url, path in theirs.items():
            if path in lines:
                yield Problem(lines[path], "url", f"{url}: also in {sibling.name}")


def _histogram(sizes: Iterable[int]) -> dict[int, int]:
    return dict(sorted(Counter(sizes).items()))


def _by_line(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.line)
