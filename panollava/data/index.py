"""Which rows of a table a training or an evaluation uses: every image is decoded once, and what is bad is named before step 1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from panollava.data.images import ASPECT_ERROR, BadImage, load_panorama, off_aspect
from panollava.data.table import Problem, Row, listed, resolve_image, scan
from panollava.data.threads import in_order
from panollava.errors import BadInput
from panollava.views import Image

OnProgress = Callable[[int, int], None]
"""(images done, images in all), in the caller's thread."""
WhyClosed = Callable[[Path], str]
"""Why a file may not be opened; empty when it may."""
Keep = Callable[[int, Image], None]
"""(image number, decoded panorama), in threads of the pool, several at once, each image once and in no fixed order."""


@dataclass(frozen=True)
class Index:
    """The usable rows of a table and their panoramas.

    `images` are the files in the order the rows first name them. One that could not be decoded keeps its number, so that numbers do not
    depend on it, but no row points to it.
    """

    rows: tuple[Row, ...]
    row_image: tuple[int, ...]
    images: tuple[Path, ...]
    bad: tuple[Problem, ...]

    @property
    def used_images(self) -> list[int]:
        """Numbers of the images that a row shows, each once."""
        return sorted(set(self.row_image))


def build_index(
    csv: Path,
    image_root: Path | None = None,
    max_bad_frac: float = 0.0,
    on_progress: OnProgress | None = None,
    keep: Keep | None = None,
    need_annotation: bool = True,
) -> Index:
    """Read a table and decode each of its images. Raises BadInput naming the bad rows if they are more than `max_bad_frac` of all, or all."""
    rows, problems = scan(csv, need_annotation)
    if not rows:
        raise BadInput(listed([problem.at(csv) for problem in problems]))
    paths, reasons = locate(rows, csv, image_root)
    images = list(dict.fromkeys(paths.values()))
    numbers = {path: number for number, path in enumerate(images)}
    decoded = decode(images, on_progress, keep)
    for url, path in paths.items():
        if reason := unusable(decoded[numbers[path]]):
            reasons[url] = f"{url}: {reason}"
    good = [row for row in rows if row.url not in reasons]
    bad = sorted([*problems, *(Problem(row.line, "url", reasons[row.url]) for row in rows if row.url in reasons)], key=lambda each: each.line)
    _refuse(csv, len(good), bad, max_bad_frac)
    return Index(tuple(good), tuple(numbers[paths[row.url]] for row in good), tuple(images), tuple(bad))


def _refuse(csv: Path, good: int, bad: Sequence[Problem], max_bad_frac: float) -> None:
    lost = len({problem.line for problem in bad})
    if good and lost <= max_bad_frac * (good + lost):
        return
    head = f"{csv}: {lost:,} of {good + lost:,} rows cannot be used (max_bad_frac is {max_bad_frac:g}):"
    raise BadInput("\n".join([head, listed([problem.at(csv) for problem in bad])]))


def locate(rows: Sequence[Row], csv: Path, image_root: Path | None, why_closed: WhyClosed | None = None) -> tuple[dict[str, Path], dict[str, str]]:
    """The file behind each different url, and why there is none for the others, or none that may be opened."""
    paths, reasons = {}, {}
    for url in dict.fromkeys(row.url for row in rows):
        try:
            path = resolve_image(url, csv, image_root)
        except BadInput as error:
            reasons[url] = str(error)
            continue
        if reason := why_closed(path) if why_closed else "":
            reasons[url] = f"{url}: {reason}"
        else:
            paths[url] = path
    return paths, reasons


def decode(paths: Sequence[Path], on_progress: OnProgress | None = None, keep: Keep | None = None) -> list[tuple[int, int] | BadImage]:
    """(width, height) of each panorama, every pixel of it read on all CPUs, or why it cannot be read."""

    def one(number: int) -> tuple[int, int] | BadImage:
        try:
            panorama = load_panorama(paths[number])
        except BadImage as error:
            return error
        size = (panorama.shape[1], panorama.shape[0])
        if keep is not None and not unusable(size):
            keep(number, panorama)
        return size

    decoded = []
    for size in in_order(one, range(len(paths))):
        decoded.append(size)
        if on_progress is not None:
            on_progress(len(decoded), len(paths))
    return decoded


def unusable(decoded: tuple[int, int] | BadImage) -> str:
    """Why this image cannot be used; empty when it can."""
    if isinstance(decoded, BadImage):
        return decoded.reason
    width, height = decoded
    if off_aspect(width, height) > ASPECT_ERROR:
        return f"{width} x {height} pixels are not the 2:1 of a whole panorama"
    return ""
