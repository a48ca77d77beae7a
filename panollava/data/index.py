"""Which rows of the tables a training or an evaluation uses: every image is decoded once, and what is bad is named before step 1."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from panollava.data.images import BadImage, Panorama, Picture, Reading, read_panorama, unusable
from panollava.data.seen import Seen, stamp
from panollava.data.table import NO_SUCH_FILE, Problem, Row, is_remote, listed, resolve_image, scan
from panollava.data.threads import in_order
from panollava.errors import BadInput, MissingFile

OnProgress = Callable[[int, int], None]
"""(images done, images in all), in the caller's thread."""
WhyClosed = Callable[[Path], str]
"""Why a file may not be opened; empty when it may."""
Keep = Callable[[int, Panorama], None]
"""(image number, decoded panorama), in threads of the pool, several at once, each image at most once and in no fixed order."""
Fetch = Callable[[Sequence[str]], Mapping[str, Path | BadInput]]
"""Downloads addresses: the file of each, or why there is none."""


@dataclass(frozen=True)
class Memory:
    """What earlier runs have found out: a picture that was seen and whose views are at hand need not be decoded."""

    seen: Seen
    at_hand: Callable[[str], bool]
    """By the sha256 of the picture."""

    def recall(self, path: Path) -> Picture | None:
        picture = self.seen.get(path)
        return picture if picture and self.at_hand(picture.sha256) else None


@dataclass(frozen=True)
class Index:
    """The usable rows of one table or several, in their order, and their panoramas.

    `images` are the files in the order the rows first name them. One that could not be decoded keeps its number, so that numbers do not
    depend on it, but no row points to it. `bad` are the messages about rows that are left out.
    """

    rows: tuple[Row, ...]
    row_image: tuple[int, ...]
    images: tuple[Path, ...]
    pictures: tuple[Picture | None, ...]
    bad: tuple[str, ...]

    @property
    def used_images(self) -> list[int]:
        """Numbers of the images that a row shows, each once."""
        return sorted(set(self.row_image))


@dataclass(frozen=True)
class _Table:
    """One file: its rows, what is wrong with others, and where its images are or why they are not."""

    csv: Path
    rows: list[Row]
    problems: list[Problem]
    paths: dict[str, Path]
    reasons: dict[str, str]


def build_index(
    csvs: Path | Sequence[Path],
    image_root: Path | None = None,
    max_bad_frac: float = 0.0,
    on_progress: OnProgress | None = None,
    keep: Keep | None = None,
    need_annotation: bool = True,
    *,
    reading: Reading = Reading(),
    memory: Memory | None = None,
    fetch: Fetch | None = None,
) -> Index:
    """Read tables and decode each of their images. Raises BadInput naming the bad rows if they are more than `max_bad_frac` of all, or all."""
    names = [csvs] if isinstance(csvs, Path) else csvs
    tables = [_read(csv, image_root, need_annotation, fetch) for csv in names]
    images = list(dict.fromkeys(path for table in tables for path in table.paths.values()))
    found = dict(zip(images, decode(images, on_progress, keep, reading, memory), strict=True))
    for table in tables:
        for url, path in table.paths.items():
            if reason := why_unusable(found[path], reading.partial):
                table.reasons[url] = f"{url}: {reason}"
    good = [(row, table.paths[row.url]) for table in tables for row in table.rows if row.url not in table.reasons]
    bad = [(table.csv, problem) for table in tables for problem in _bad(table)]
    _refuse(len(good), bad, max_bad_frac)
    numbers = {path: number for number, path in enumerate(images)}
    pictures = tuple(None if isinstance(found[path], BadImage) else found[path] for path in images)
    return Index(
        tuple(row for row, _ in good), tuple(numbers[path] for _, path in good), tuple(images), pictures,  # type: ignore[arg-type]
        tuple(problem.at(csv) for csv, problem in bad),
    )  # fmt: skip


def _read(csv: Path, image_root: Path | None, need_annotation: bool, fetch: Fetch | None) -> _Table:
    """Raises BadInput for a table without a row that could be used."""
    rows, problems = scan(csv, need_annotation)
    if not rows:
        raise BadInput(listed([problem.at(csv) for problem in problems]))
    return _Table(csv, rows, problems, *locate(rows, csv, image_root, fetch=fetch))


def _bad(table: _Table) -> list[Problem]:
    lost = (Problem(row.line, "url", table.reasons[row.url]) for row in table.rows if row.url in table.reasons)
    return sorted([*table.problems, *lost], key=lambda problem: problem.line)


def _refuse(good: int, bad: Sequence[tuple[Path, Problem]], max_bad_frac: float) -> None:
    lost = len({(csv, problem.line) for csv, problem in bad})
    if good and lost <= max_bad_frac * (good + lost):
        return
    where = ", ".join(dict.fromkeys(str(csv) for csv, _ in bad))
    head = f"{where}: {lost:,} of {good + lost:,} rows cannot be used (max_bad_frac is {max_bad_frac:g}):"
    refusal = MissingFile if all(NO_SUCH_FILE in problem.message for _, problem in bad) else BadInput
    raise refusal("\n".join([head, listed([problem.at(csv) for csv, problem in bad])]))


def locate(
    rows: Sequence[Row], csv: Path, image_root: Path | None, why_closed: WhyClosed | None = None, fetch: Fetch | None = None
) -> tuple[dict[str, Path], dict[str, str]]:
    """The file behind each different url, and why there is none for the others, or none that may be opened."""
    paths, reasons = {}, {}
    for url, path in _resolve(rows, csv, image_root, fetch):
        if isinstance(path, BadInput):
            reasons[url] = str(path)
        elif reason := why_closed(path) if why_closed else "":
            reasons[url] = f"{url}: {reason}"
        else:
            paths[url] = path
    return paths, reasons


def _resolve(rows: Sequence[Row], csv: Path, image_root: Path | None, fetch: Fetch | None) -> Iterator[tuple[str, Path | BadInput]]:
    urls = list(dict.fromkeys(row.url for row in rows))
    remote = fetch([url for url in urls if is_remote(url)]) if fetch else {}
    for url in urls:
        try:
            yield url, remote[url] if url in remote else resolve_image(url, csv, image_root)
        except BadInput as error:
            yield url, error


def decode(
    paths: Sequence[Path],
    on_progress: OnProgress | None = None,
    keep: Keep | None = None,
    reading: Reading = Reading(),
    memory: Memory | None = None,
) -> list[Picture | BadImage]:
    """What each file shows, every pixel of it read on all CPUs unless it is in memory, or why it cannot be read."""

    def one(number: int) -> Picture | BadImage:
        path = paths[number]
        if memory and (known := memory.recall(path)):
            return known
        try:
            before = stamp(path) if memory else []
            panorama = read_panorama(path, reading)
        except BadImage as error:
            return error
        if memory:
            memory.seen.put(path, panorama.picture, before)
        if keep is not None and not why_unusable(panorama.picture, reading.partial):
            keep(number, panorama)
        return panorama.picture

    decoded = []
    for picture in in_order(one, range(len(paths))):
        decoded.append(picture)
        if on_progress is not None:
            on_progress(len(decoded), len(paths))
    return decoded


def why_unusable(found: Picture | BadImage, partial: bool = False) -> str:
    """Why this image cannot be used; empty when it can."""
    return found.reason if isinstance(found, BadImage) else unusable(found.width, found.height, partial)
