"""What a checkpoint's weights have learned beside without its holding it: the frozen language model, and how pixels are normalised.

Each is known by the setting that names it and by a fingerprint. A name alone says little: a directory may be moved, or be given other weights.
"""

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from panollava import rundir
from panollava.errors import BadInput
from panollava.model.panollava import PanoLlava

WHAT = {"language_model": "whose weights are others", "vision_model": "whose image processor has another mean or std"}
"""By the setting that names it, how it differs."""


def fingerprints(model: PanoLlava) -> dict[str, str]:
    """Of a model on the CPU, by setting. Adapters are in the checkpoint, so they do not count."""
    found = {"vision_model": _fingerprint({"mean": model.mean, "std": model.std})}
    if model.language is not None:
        weights = {name.replace(".base_layer.", "."): each for name, each in model.language.named_parameters() if ".lora_" not in name}
        found["language_model"] = _fingerprint(weights)
    return found


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {list(tensor.shape)} {zlib.crc32(tensor.detach().contiguous().numpy().data)}\n".encode())  # 7 GB a second
    return whole.hexdigest()


def differing(checkpoint: Path, model: PanoLlava) -> str:
    """In what a model is not the one that a checkpoint has learned beside; empty where nothing differs or was noted. A complete file has its own."""
    if checkpoint.suffix != ".ckpt":
        return ""
    theirs, ours = rundir.read_note(checkpoint).beside, fingerprints(model)
    return "; ".join(f"{field} is one {WHAT[field]}" for field in ours if field in theirs and theirs[field] != ours[field])


def check_same(checkpoint: Path, model: PanoLlava) -> None:
    """Raises BadInput naming the settings whose models are not those that a checkpoint has learned beside."""
    if other := differing(checkpoint, model):
        raise BadInput(f"{checkpoint}: has learned beside other models: {other}. Name those that it was trained with.")
