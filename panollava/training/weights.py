"""Weights in and out of files: what a checkpoint may leave out, what must be there, and nothing that is a pickle.

A checkpoint holds the parts that a stage so far has changed. The others are the pretrained ones its config names (the language model)
or still untrained (the bridge, after stage vision). `model_final.safetensors` is complete.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor

from panollava import rundir
from panollava.config import RunConfig, parse
from panollava.errors import BadInput
from panollava.model.panollava import PanoLlava
from panollava.rundir import Architecture
from panollava.stages import Stage, learned, parts

Value = TypeVar("Value")
TIED = "language.lm_head.weight"
"""Another name for the embedding in models that tie them; save_model stores it once."""


@dataclass(frozen=True)
class Report:
    """What `load_weights` did: tensors loaded, and parts the file leaves as they are."""

    loaded: int
    left: list[str]

    def __str__(self) -> str:
        return f"loaded {self.loaded} tensors" + (f"; {', '.join(self.left)} not in the file, as built" if self.left else "")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A .ckpt whose checksum holds, read without unpickling code. Raises BadInput."""
    rundir.verify(path)
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated classes for a file that is none
        raise BadInput(f"{path}: not a checkpoint that can be read safely: {str(error).splitlines()[0]}") from error
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    """The model's tensors in a .ckpt or .safetensors file, by the model's own names. Raises BadInput."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path}: not a safetensors file: {error}") from error
    state: dict[str, Tensor] = read_checkpoint(path)["state_dict"]
    return {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}


def load_weights(model: PanoLlava, path: Path, stage: Stage) -> Report:
    """Put the tensors of a file of `stage` into a model. Raises BadInput for any tensor missing, unexpected or of another shape."""
    theirs, ours = read_weights(path), {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    needed = learned(stage) - (set() if describe(path)[0].lora_r else {"lora"})
    missing = [name for name in ours if name not in theirs and _part(name) in needed]
    unexpected = [name for name in theirs if name not in ours and _part(name) != "language"]
    shapes = [
        f"{name} is {list(theirs[name].shape)} there and {list(ours[name].shape)} here"
        for name in ours.keys() & theirs.keys()
        if theirs[name].shape != ours[name].shape
    ]
    if missing or unexpected or shapes:
        told = [f"{len(missing)} tensors missing {missing[:3]}", f"{len(unexpected)} unexpected {unexpected[:3]}", *sorted(shapes)[:3]]
        raise BadInput(f"{path}: does not fit this model: {'; '.join(told)}.")
    known = {name: tensor for name, tensor in theirs.items() if name in ours}
    _fill(model, known)
    return Report(len(known), sorted({_part(name) for name in ours if name not in theirs and name != TIED}))


def _fill(model: PanoLlava, weights: dict[str, Tensor]) -> None:
    """The weights of a layer that has an adapter are those of the layer in it."""
    wrapped = {name.replace(".base_layer.", "."): name for name in model.state_dict() if ".base_layer." in name}
    model.load_state_dict({wrapped.get(name, name): tensor for name, tensor in weights.items()}, strict=False)


def _part(name: str) -> str:
    """The part a tensor belongs to: `model.vision.encoder...` and `vision.encoder...` -> `vision`; an adapter is of part `lora`."""
    return "lora" if "lora" in parts(name) else name.removeprefix("model.").partition(".")[0]


def light_state(state: dict[str, Value], stage: Stage) -> dict[str, Value]:
    """Those tensors of a LightningModule that a stage so far has changed."""
    return {name: tensor for name, tensor in state.items() if _part(name) in learned(stage)}


def save_final(model: PanoLlava, path: Path, metadata: dict[str, str]) -> None:
    """Every tensor of the model as one safetensors file, whole or not at all. Tied weights are stored once."""
    part = path.with_name(path.name + ".part")
    save_model(model, str(part), metadata=metadata)
    part.replace(path)


def final_metadata(config: RunConfig, stage: Stage, architecture: Architecture) -> dict[str, str]:
    """What a complete file says of itself. Its adapters are merged, so it describes a model without; that it was one with is kept as `merged`."""
    merged = stage is Stage.finetune and config.lora_r > 0
    if merged:
        config = config.without_adapters()
        architecture = architecture.model_copy(update={name: Architecture.model_fields[name].default for name in rundir.LORA_FIELDS})
    told = {"format": "pt", "stage": str(stage), "config": config.model_dump_json(), "architecture": architecture.model_dump_json()}
    return told | ({"merged": "lora"} if merged else {})


def refuse_merged(path: Path) -> None:
    """No training starts from merged adapters: its checkpoints would not hold the language model that they changed. Raises BadInput."""
    if path.suffix == ".safetensors" and "merged" in _metadata(path):
        raise BadInput(f"{path}: its LoRA adapters are merged into its language model; start from checkpoints/best.ckpt beside it, which keeps them.")


def describe(path: Path) -> tuple[RunConfig, Stage, Architecture]:
    """What a .ckpt or .safetensors file was made with. Raises BadInput for a file that does not say."""
    if path.suffix != ".safetensors":
        note = rundir.read_note(path)
        return parse(note.config), note.stage, note.architecture
    if not path.is_file():
        raise BadInput(f"{path}: there is no such checkpoint.")
    metadata = _metadata(path)
    if "config" not in metadata:
        raise BadInput(f"{path}: carries no config, so it was not written by PanoLLaVA.")
    return RunConfig.model_validate_json(metadata["config"]), Stage(metadata["stage"]), Architecture.model_validate_json(metadata["architecture"])


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise BadInput(f"{path}: not a safetensors file: {error}") from error
