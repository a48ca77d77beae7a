"""From a CSV to batches: every image is decoded once before step 1, its views are kept, and the order is a function of (seed, epoch).

Legend: V views, S view side in pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from panollava import views
from panollava.data.images import load_panorama
from panollava.data.index import Index, build_index
from panollava.errors import BadInput
from panollava.model.panollava import Batch
from panollava.model.text import IGNORE, Encoded, Prompter

VIEWS_IN_MEMORY = 2 << 30
"""Bytes of cut views that stay in memory; panoramas beyond are decoded again when they are drawn."""
ROWS_IN_MEMORY = 10_000
"""Rows that stay in memory as token ids, up to 7 kB each; those beyond are tokenized again in every epoch."""

Views = npt.NDArray[np.uint8]
OnProgress = Callable[[int, int], None]


class Panoramas:
    """The unique panoramas of a split as views uint8 [V, S, S, 3]."""

    def __init__(self, cutter: views.Cutter) -> None:
        self.cutter = cutter
        self.paths: list[Path] = []
        self._kept: dict[int, Views] = {}
        self._room = VIEWS_IN_MEMORY

    def keep(self, image: int, panorama: views.Image) -> None:
        """Called from several threads while the index decodes."""
        cut = self.cutter(panorama)
        if (room := self._room - cut.nbytes) >= 0:
            self._kept[image], self._room = cut, room

    def __getitem__(self, image: int) -> Views:
        kept = self._kept.get(image)
        return self.cutter(load_panorama(self.paths[image])) if kept is None else kept


@dataclass(frozen=True)
class Split:
    """One CSV, checked: its rows, and its panoramas ready to be drawn."""

    index: Index
    panoramas: Panoramas


def load_split(
    csv: Path, image_root: str | None, max_bad_frac: float, cutter: views.Cutter, on_progress: OnProgress, need_annotation: bool = True
) -> Split:
    """Decode every image of a CSV. Raises BadInput naming the rows that cannot be used."""
    panoramas = Panoramas(cutter)
    index = build_index(csv, Path(image_root) if image_root else None, max_bad_frac, on_progress, panoramas.keep, need_annotation)
    panoramas.paths = list(index.images)
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
    """(image, row) pairs -> Batch. A panorama that several questions share is drawn and encoded once."""

    split: Split
    prompter: Prompter | None
    encoded: dict[int, Encoded] = field(default_factory=dict, repr=False, compare=False)
    """By row."""

    def __call__(self, pairs: list[tuple[int, int]]) -> Batch:
        images = sorted({image for image, _ in pairs})
        place = {image: i for i, image in enumerate(images)}
        pixels = torch.from_numpy(np.stack([self.split.panoramas[image] for image in images]))
        image_index = torch.tensor([place[image] for image, _ in pairs])
        if self.prompter is None:
            none = torch.zeros((len(pairs), 0), dtype=torch.long)
            return Batch(pixels, image_index, none, none, none)
        ids, mask, labels = self.prompter.collate([self._encoded(row, self.prompter) for _, row in pairs])
        return Batch(pixels, image_index, ids, mask, labels, tokens=int(mask.sum()), supervised=int((labels != IGNORE).sum()))

    def _encoded(self, row: int, prompter: Prompter) -> Encoded:
        if (known := self.encoded.get(row)) is not None:
            return known
        told = self.split.index.rows[row]
        encoded = prompter.exchange(told.query, told.annotation)
        if len(self.encoded) < ROWS_IN_MEMORY:
            self.encoded[row] = encoded
        return encoded


@dataclass(frozen=True)
class Plan:
    """Which samples make up each step of each epoch. A run resumed at (epoch, batch) draws exactly what was left."""

    samples: int
    batch_size: int
    epochs: int
    seed: int
    max_steps: int | None = None
    drop_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size)
        return max(1, whole + bool(rest and not self.drop_last))

    @property
    def steps(self) -> int:
        total = self.steps_per_epoch * self.epochs
        return min(total, self.max_steps or total)

    @property
    def planned_epochs(self) -> int:
        """Epochs that are begun: max_steps may end the last one early."""
        return -(-self.steps // self.steps_per_epoch)

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


def loader(samples: Samples, collate: Collate, batches: list[list[int]], num_workers: int) -> DataLoader[Any]:
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=num_workers)


def need_images(csv: Path, split: Split, smallest: int) -> None:
    """Raises BadInput when a split has fewer panoramas than statistics across images need."""
    if (count := len(split.index.used_images)) < smallest:
        raise BadInput(f"{csv}: {count} different panoramas, and the overlap loss takes statistics across at least {smallest}.")
