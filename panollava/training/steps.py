"""One optimizer step as micro-batches: the samples of a step are the same however many devices and micro-batches share them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from panollava import ranks
from panollava.model.panollava import Batch
from panollava.model.text import IGNORE

Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class Step:
    """What one rank computes of a step. A weight is what its micro-batch's mean loss stands for: supervised tokens, or panoramas."""

    batches: tuple[Batch, ...]
    weights: tuple[int, ...]

    def to(self, device: torch.device, non_blocking: bool = False) -> "Step":
        return Step(tuple(batch.to(device, non_blocking) for batch in self.batches), self.weights)

    def in_parts(self, size: int) -> "Step":
        """The same samples in micro-batches of at most `size`; itself where it has no larger one."""
        if all(len(batch.image_index) <= size for batch in self.batches):
            return self
        parts = tuple(part for batch in self.batches for part in in_parts(batch, size))
        return Step(parts, tuple(map(weight, parts)))


@dataclass(frozen=True)
class Share:
    """(image, row) pairs of a whole step -> this rank's Step, in micro-batches of `size` samples.

    Samples are dealt in turn, so that the k-th micro-batches of all ranks together are the k-th of a single process. All ranks have equally many:
    one that has no sample left for its last computes a sample of weight 0.
    """

    collate: Callable[[Pairs], Batch]
    size: int
    rank: int
    ranks: int

    def __call__(self, pairs: Pairs) -> Step:
        mine = pairs[self.rank :: self.ranks]
        parts = [mine[start : start + self.size] for start in range(0, -(-len(pairs) // self.ranks), self.size)]
        batches = tuple(self.collate(part or pairs[:1]) for part in parts)
        return Step(batches, tuple(weight(batch) if part else 0 for part, batch in zip(parts, batches, strict=True)))


def weight(batch: Batch) -> int:
    """Supervised tokens where there are labels, else panoramas."""
    return int((batch.labels[:, 1:] != IGNORE).sum()) if batch.labels.numel() else len(batch.pixels)


def in_parts(batch: Batch, size: float) -> tuple[Batch, ...]:
    """The samples of a batch in batches of at most `size`; itself where it is no larger."""
    samples = len(batch.image_index)
    return (batch,) if samples <= size else tuple(_part(batch, slice(start, start + int(size))) for start in range(0, samples, int(size)))


def _part(batch: Batch, rows: slice) -> Batch:
    """Some samples as Collate would have made a batch of them: the panoramas they ask about, and no more padding than they need."""
    asked = batch.image_index[rows]
    images = torch.tensor(sorted(set(asked.tolist())), device=asked.device)
    kept = batch.attention_mask[rows].any(0)  # [T]
    ids, mask, labels = (each[rows][:, kept] for each in (batch.input_ids, batch.attention_mask, batch.labels))
    return Batch(
        pixels=batch.pixels if batch.features is not None else batch.pixels[images],
        image_index=torch.searchsorted(images, asked), input_ids=ids, attention_mask=mask, labels=labels,
        features=None if batch.features is None else batch.features[images],
        tokens=int(mask.sum()), supervised=int((labels != IGNORE).sum()),
    )  # fmt: skip


def share(collate: Callable[[Pairs], Batch], batch_size: int, accumulation: int) -> Share:
    return Share(collate, batch_size // accumulation // ranks.count(), ranks.rank(), ranks.count())


def validation_share(batches: list[list[int]]) -> tuple[list[list[int]], int]:
    """This rank's validation batches, as many as every other rank has, and how many of them count: what is repeated to fill up does not."""
    mine = batches[ranks.rank() :: ranks.count()]
    wanted = -(-len(batches) // ranks.count())
    return mine + batches[:1] * (wanted - len(mine)), len(mine)
