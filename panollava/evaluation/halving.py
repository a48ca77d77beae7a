"""Work in batches that fit into memory: one that does not is halved and done again, and so are all that follow. Nothing is left out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Batches:
    """`size` is what is tried next; `on_halved` hears of the size that did not fit and of the one that is tried instead."""

    size: int
    on_halved: Callable[[int, int], None]

    def __call__(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> Iterator[tuple[Sequence[Item], Result]]:
        """Each batch with its result, in order. Raises torch.OutOfMemoryError where not even one item fits."""
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                result = work(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
            else:
                yield batch, result
                start += len(batch)
                continue
            # Out here the exception is gone, and with it the tensors its frames held.
            self._halve(len(batch))

    def _halve(self, tried: int) -> None:
        self.size = -(-tried // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.on_halved(tried, self.size)
