"""What a frozen vision encoder sees in each panorama, computed once and kept in the cache.

With fp32 the features are kept as they are, so losses are the same to the last bit. With bf16 or fp16 they are kept in that precision,
rounded once: half the size, and the first matrix product behind them would round them anyway.
Legend: U panoramas, V views, S view side, G patches a side, D vision width.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from panollava import ranks
from panollava.data.cache import Entries
from panollava.data.images import Picture
from panollava.data.room import Room
from panollava.model.panollava import PanoLlava

SEEING = 1
"""Counts changes of the code that alter what an encoder says, so that old features are not taken for new ones."""
AT_ONCE = 8
"""Panoramas that are encoded together."""
KEPT_AS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""By the trainer's precision."""


@dataclass(frozen=True)
class Features:
    """The features of a split's panoramas, by image number."""

    entries: Entries
    pictures: tuple[Picture | None, ...]
    dtype: torch.dtype

    def of(self, images: Sequence[int]) -> Tensor | None:
        """[U, V, G, G, D]; None unless all of them are there: then the encoder sees the whole batch, and gives the same."""
        found = self.entries.stacked([self.name(image) for image in images])
        if found is None:
            return None
        together = torch.from_numpy(found)
        return together if self.dtype is torch.float32 else together.view(self.dtype)

    def keep(self, image: int, features: Tensor) -> bool:
        """Whether there was room for the features of a panorama, [V, G, G, D]."""
        kept = features.to(self.dtype).cpu()
        return self.entries.put(self.name(image), (kept if self.dtype is torch.float32 else kept.view(torch.int16)).numpy())

    def name(self, image: int) -> str:
        picture = self.pictures[image]
        assert picture is not None, "no row shows an image that could not be read"
        return picture.sha256


def features_of(model: PanoLlava, room: Room, views: str, pictures: tuple[Picture | None, ...], precision: str, device: torch.device) -> Features:
    """The place of what an encoder sees in views of this recipe. Empty until `encode_missing` has filled it."""
    return Features(Entries(room, "features", _recipe(model, views, precision, device)), pictures, KEPT_AS[precision])


@torch.no_grad()
def encode_missing(
    features: Features,
    model: PanoLlava,
    images: Sequence[int],
    draw: Callable[[int], npt.NDArray[np.uint8]],
    device: torch.device,
    say: Callable[[int, int], None],
) -> None:
    """Encode this rank's part of the panoramas that have no features yet, until the room is used up. `draw` gives views, uint8 [V, S, S, 3]."""
    mine = images[ranks.rank() :: ranks.count()]
    missing = [image for image in mine if not features.entries.use(features.name(image))]
    model.to(device).vision.eval()
    for start in range(0, len(missing), AT_ONCE):
        group = missing[start : start + AT_ONCE]
        pixels = torch.from_numpy(np.stack([draw(image) for image in group])).to(device)  # [U, V, S, S, 3]
        with torch.autocast(device.type, features.dtype, enabled=features.dtype is not torch.float32):
            seen = model.patches(pixels)  # [U, V, G, G, D]
        if not all(features.keep(image, each) for image, each in zip(group, seen, strict=True)):
            return
        say(start + len(group), len(missing))


def _recipe(model: PanoLlava, views: str, precision: str, device: torch.device) -> str:
    """All that features depend on besides the image: its views, the encoder's weights and settings, and what computes them."""
    weights = hashlib.sha256()
    for name, tensor in sorted({**model.vision.state_dict(), "mean": model.mean, "std": model.std}.items()):
        whole = tensor.detach().cpu().contiguous()
        weights.update(f"{name} {whole.dtype} {list(whole.shape)} ".encode())
        weights.update(whole.flatten().view(torch.uint8).numpy().data)
    config: Any = model.vision.config
    settings = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}  # where it lies does not count
    makers = [SEEING, precision, device.type, torch.__version__, transformers.__version__]
    return json.dumps([weights.hexdigest(), settings, views, makers], sort_keys=True, default=str)
