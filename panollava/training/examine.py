"""What a validation says of the encoder: figures over many panoramas at once, whatever the size of its batches.

Legend: U panoramas, V views, G grid side, D width, M pairs a panorama.
"""

import torch
from torch import Tensor

from panollava import ranks
from panollava.losses.health import agreement, spread
from panollava.losses.overlap import FEWEST, OverlapPairs, evenly
from panollava.losses.ranks import fingerprints, gathered

PANORAMAS, CELLS = 64, 256
"""So many panoramas of a validation are examined, and so many cells or pairs of each: of a full-size encoder that is 100 MB."""


class Examination:
    """Features of the first panoramas of one validation, each once however many questions ask about it."""

    def __init__(self, pairs: OverlapPairs | None) -> None:
        self.pairs = pairs
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def is_full(self) -> bool:
        return len(self._seen) >= self._most

    @property
    def _most(self) -> int:
        return max(1, PANORAMAS // ranks.count())

    @torch.no_grad()
    def add(self, pixels: Tensor, grid: Tensor) -> None:
        """Patch features [U, V, G, G, D] of panoramas uint8 [U, V, S, S, 3]."""
        if not (room := self._most - len(self._seen)):
            return
        keys = fingerprints(pixels).tolist()
        new = [place for place, key in enumerate(keys) if key not in self._seen][:room]
        mine, theirs = self._cells(grid[new])
        self._seen |= {keys[place]: (mine[i].clone(), theirs[i].clone()) for i, place in enumerate(new)}

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Those of all ranks together. None for too few panoramas; without overlap none that compare views."""
        mine, theirs = (torch.stack(each) for each in zip(*self._seen.values(), strict=True))
        mine, theirs = gathered(torch.tensor(list(self._seen), device=mine.device), mine, theirs)
        if len(mine) < FEWEST:
            return {}
        compared = agreement(mine, theirs, self._view()) if self.pairs else {}
        return compared | spread(mine)

    def _cells(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        mine, theirs = self.pairs(grid) if self.pairs else (grid.flatten(1, 3).float(),) * 2
        chosen = evenly(mine.shape[1], CELLS).to(grid.device)
        return mine[:, chosen], theirs[:, chosen]

    def _view(self) -> Tensor:
        assert self.pairs is not None
        return self.pairs.view[evenly(len(self.pairs.view), CELLS).to(self.pairs.view.device)]
