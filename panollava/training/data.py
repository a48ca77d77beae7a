"""From tables to batches: every image is looked at before step 1, its views are kept in the cache, and the order is a function of (seed, epoch).

Legend: V views, S view side in pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from panollava import views
from panollava.config import RunConfig
from panollava.data import remote
from panollava.data.cache import Entries, open_room, views_recipe
from panollava.data.images import Panorama, Picture, Reading, read_panorama
from panollava.data.index import Fetch, Index, Memory, build_index
from panollava.data.room import Room
from panollava.data.seen import Seen
from panollava.errors import BadInput
from panollava.model.panollava import Batch
from panollava.model.text import IGNORE, Encoded, Prompter
from panollava.schedule import Schedule
from panollava.training.features import Features
from panollava.training.orphans import end_with_parent

ROWS_IN_MEMORY = 10_000
"""Rows that stay in memory as token ids, up to 7 kB each; those beyond are tokenized again in every epoch."""

Views = npt.NDArray[np.uint8]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Access:
    """How a run gets at its images: how files are read, where what was made of them is kept, and who downloads them."""

    reading: Reading = field(default_factory=Reading)
    room: Room | None = None
    fetch: Fetch | None = None


def access(config: RunConfig, cutter: views.Cutter, on_progress: OnProgress) -> Access:
    """Raises BadInput for a cache directory that cannot be written."""
    room = open_room(config.cache_dir, config.cache_gb) if config.cache != "off" or config.allow_remote else None
    return Access(
        reading_of(config, cutter),
        room if config.cache != "off" else None,
        partial(remote.fetch_all, room, on_progress=on_progress) if config.allow_remote and room else None,
    )


def reading_of(config: RunConfig, cutter: views.Cutter) -> Reading:
    """How a run's files become panoramas; whoever asks its model reads them alike."""
    return Reading(cutter.width if config.fast_decode else None, config.allow_partial_pano)


class Panoramas:
    """The unique panoramas of a split as views uint8 [V, S, S, 3]: from the cache, else decoded and cut whenever they are drawn."""

    def __init__(self, cutter: views.Cutter, reading: Reading, entries: Entries | None) -> None:
        self.cutter, self.reading, self.entries = cutter, reading, entries
        self.paths: tuple[Path, ...] = ()
        self.pictures: tuple[Picture | None, ...] = ()

    def keep(self, image: int, panorama: Panorama) -> None:
        """Called from several threads while the index decodes."""
        if self.entries is not None and not self.entries.room.is_full:
            self.entries.put(panorama.picture.sha256, self.cutter(panorama.pixels))

    def __getitem__(self, image: int) -> Views:
        picture = self.pictures[image]
        kept = self.entries.get(picture.sha256) if self.entries is not None and picture else None
        return self.cutter(read_panorama(self.paths[image], self.reading).pixels) if kept is None else kept


@dataclass(frozen=True)
class Split:
    """The tables of one split, checked: their rows, and their panoramas ready to be drawn."""

    index: Index
    panoramas: Panoramas


def load_split(
    csvs: Path | Sequence[Path],
    image_root: str | None,
    max_bad_frac: float,
    cutter: views.Cutter,
    on_progress: OnProgress,
    need_annotation: bool = True,
    *,
    access: Access = Access(),
    need_views: bool = True,
) -> Split:
    """Look at every image of some tables. Raises BadInput naming the rows that cannot be used.

    Without `need_views`, an image that an earlier run has read is not decoded for its views, because something else stands in for them.
    """
    tables = [csvs] if isinstance(csvs, Path) else list(csvs)
    entries = Entries(access.room, "views", views_recipe(cutter, access.reading)) if access.room else None
    panoramas = Panoramas(cutter, access.reading, entries)
    memory = Memory(Seen(entries.room.root, tables), entries.use if need_views else lambda _: True) if entries else None
    index = build_index(
        tables, Path(image_root) if image_root else None, max_bad_frac, on_progress, panoramas.keep, need_annotation,
        reading=access.reading, memory=memory, fetch=access.fetch,
    )  # fmt: skip
    if memory:
        memory.seen.save()
    panoramas.paths, panoramas.pictures = index.images, index.pictures
    return Split(index, panoramas)


class Samples(Dataset[tuple[int, int]]):
    """Sample i as (image, row). Stage vision draws images, each once, because repeats would fake agreement across images; the others draw rows."""

    def __init__(self, split: Split, *, by_row: bool) -> None:
        index = split.index
        first_row = {image: row for row, image in reversed(list(enumerate(index.row_image)))}
        self.pairs = [(image, row) for row, image in enumerate(index.row_image)] if by_row else sorted(first_row.items())

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> tuple[int, int]:
        return self.pairs[i]


@dataclass(frozen=True)
class Collate:
    """(image, row) pairs -> Batch. A panorama that several questions share is drawn and encoded once, or comes with its features."""

    split: Split
    prompter: Prompter | None
    features: Features | None = None
    encoded: dict[int, Encoded] = field(default_factory=dict, repr=False, compare=False)
    """By row."""

    def __call__(self, pairs: list[tuple[int, int]]) -> Batch:
        images = sorted({image for image, _ in pairs})
        place = {image: i for i, image in enumerate(images)}
        features = self.features.of(images) if self.features else None
        pixels = torch.zeros(0, dtype=torch.uint8) if features is not None else self._pixels(images)
        image_index = torch.tensor([place[image] for image, _ in pairs])
        if self.prompter is None:
            none = torch.zeros((len(pairs), 0), dtype=torch.long)
            return Batch(pixels, image_index, none, none, none)
        ids, mask, labels = self.prompter.collate([self._encoded(row, self.prompter) for _, row in pairs])
        tokens, supervised = int(mask.sum()), int((labels != IGNORE).sum())
        return Batch(pixels, image_index, ids, mask, labels, features, tokens, supervised)

    def _pixels(self, images: list[int]) -> torch.Tensor:
        """uint8 [U, V, S, S, 3]"""
        return torch.from_numpy(np.stack([self.split.panoramas[image] for image in images]))

    def _encoded(self, row: int, prompter: Prompter) -> Encoded:
        if (known := self.encoded.get(row)) is not None:
            return known
        told = self.split.index.rows[row]
        encoded = prompter.exchange(told.query, told.annotation)
        if len(self.encoded) < ROWS_IN_MEMORY:
            self.encoded[row] = encoded
        return encoded


class Plan(Schedule):
    """Which samples make up each step of each epoch. A run resumed at (epoch, batch) draws exactly what was left."""

    def batches(self, epoch: int, start: int = 0) -> list[list[int]]:
        """The sample numbers of each step of an epoch, from its batch `start` on."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(self.samples, generator=generator).tolist()
        last = min(self.steps_per_epoch, self.steps - epoch * self.steps_per_epoch)
        return [order[step * self.batch_size : (step + 1) * self.batch_size] for step in range(start, last)]


def fixed_batches(samples: int, batch_size: int, smallest: int) -> Iterator[list[int]]:
    """Validation batches in file order; a rest smaller than `smallest` joins the batch before it."""
    starts = list(range(0, samples, batch_size))
    if len(starts) > 1 and samples - starts[-1] < smallest:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], samples], strict=True):
        yield list(range(start, end))


def loader(samples: Samples, collate: Callable[[list[tuple[int, int]]], Any], batches: list[list[int]], num_workers: int) -> DataLoader[Any]:
    own = torch.Generator()  # a loader draws a number for its workers; from the common ones, it would change a resumed training's
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=num_workers, generator=own, worker_init_fn=end_with_parent)


def need_images(csvs: Sequence[Path], split: Split, smallest: int) -> None:
    """Raises BadInput when a split has fewer panoramas than statistics across images need."""
    if (count := len(split.index.used_images)) < smallest:
        raise BadInput(f"{', '.join(map(str, csvs))}: {count} different panoramas, and the overlap loss takes statistics across at least {smallest}.")
