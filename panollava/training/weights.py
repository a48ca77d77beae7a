"""Weights in and out of files: what a checkpoint may leave out, what must be there, and nothing that is a pickle.

A checkpoint holds the parts that a stage so far has changed. The others are the pretrained ones its config names (the language model)
or still untrained (the bridge, after stage vision). `model_final.safetensors` is complete.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from panollava import rundir
from panollava.config import RunConfig, parse
from panollava.errors import BadInput, MissingFile
from panollava.model.panollava import PanoLlava
from panollava.rundir import Architecture
from panollava.stages import Stage, learned, parts

Value = TypeVar("Value")
TIED = "language.lm_head.weight"
"""Another name for the embedding in models that tie them; save_model stores it once."""


@dataclass(frozen=True)
class Report:
    """What loading did: how many of the file's tensors it took, and what was, rightly, on one side only."""

    loaded: int
    there: int
    missing: dict[str, int]
    """Tensors by part that stay as built, because no stage so far has changed them."""
    unexpected: dict[str, int]
    """Tensors by part that this stage does without."""

    def __str__(self) -> str:
        sides = ((self.missing, "not in the file, as built"), (self.unexpected, "in the file, not needed here"))
        told = [f"{where}: {', '.join(f'{part} ({count})' for part, count in counts.items())}" for counts, where in sides if counts]
        return "; ".join([f"loaded {self.loaded}/{self.there} tensors", *told])


FIELDS = {
    "vision": "vision_model",
    "resampler": "resampler or resampler_width",
    "projection": "resampler_width or language_model",
    "language": "language_model",
    "expander": "expander_width",
    "lora": "lora_r or lora_targets",
}
"""The settings that decide which tensors a part has."""


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
    theirs = read_weights(path)
    has_adapters = path.suffix != ".safetensors" and describe(path)[0].lora_r > 0  # those of a complete file are merged
    needed = learned(stage) - (set() if has_adapters else {"lora"})
    return _load(model, path, theirs, required=lambda name: part_of(name) in needed, spared=lambda name: part_of(name) == "language")


def load_state(module: nn.Module, path: Path, state: dict[str, Tensor], stage: Stage) -> Report:
    """Put the state of a checkpoint of `stage` back into its whole module. Raises BadInput as `load_weights` does."""
    return _load(module, path, state, required=lambda name: part_of(name) in learned(stage), spared=lambda name: False)


def _load(module: nn.Module, path: Path, theirs: dict[str, Tensor], *, required: Callable[[str], bool], spared: Callable[[str], bool]) -> Report:
    state = module.state_dict()
    wrapped = {name.replace(".base_layer.", "."): name for name in state}
    """The weights of a layer that has an adapter are those of the layer in it."""
    ours = {name: state[own] for name, own in wrapped.items()}
    missing, unexpected = [name for name in ours if name not in theirs], [name for name in theirs if name not in ours]
    wrong = {
        **{name: "is missing there" for name in missing if required(name)},
        **{name: "is unknown here" for name in unexpected if not spared(name)},
        **{
            name: f"is {list(theirs[name].shape)} there and {list(ours[name].shape)} here"
            for name in ours
            if name in theirs and theirs[name].shape != ours[name].shape
        },
    }
    if wrong:
        fields = dict.fromkeys(FIELDS.get(part_of(name), part_of(name)) for name in wrong)
        told = [f"{name} {what}" for name, what in sorted(wrong.items())[:3]]
        raise BadInput(f"{path}: does not fit this run's {', '.join(fields)}: {len(wrong)} tensors differ: {'; '.join(told)}.")
    known = {name: tensor for name, tensor in theirs.items() if name in ours}
    module.load_state_dict({wrapped[name]: tensor for name, tensor in known.items()}, strict=False)
    return Report(len(known), len(theirs), _parts(name for name in missing if name.removeprefix("model.") != TIED), _parts(unexpected))


def _parts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(part_of(name) for name in names).items()))


def part_of(name: str) -> str:
    """The part a tensor belongs to: `model.vision.encoder...` and `vision.encoder...` -> `vision`; an adapter is of part `lora`."""
    return "lora" if "lora" in parts(name) else name.removeprefix("model.").partition(".")[0]


def light_state(state: dict[str, Value], stage: Stage) -> dict[str, Value]:
    """Those tensors of a LightningModule that a stage so far has changed."""
    return {name: tensor for name, tensor in state.items() if part_of(name) in learned(stage)}


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
    if path.suffix == ".safetensors" and "merged" in metadata(path):
        raise BadInput(f"{path}: its LoRA adapters are merged into its language model; start from checkpoints/best.ckpt beside it, which keeps them.")


def describe(path: Path) -> tuple[RunConfig, Stage, Architecture]:
    """What a .ckpt or .safetensors file was made with. Raises BadInput for a file that does not say."""
    if path.suffix != ".safetensors":
        note = rundir.read_note(path)
        return parse(note.config), note.stage, note.architecture
    if not path.is_file():
        raise MissingFile(f"{path}: there is no such checkpoint.")
    told = metadata(path)
    if "config" not in told:
        raise BadInput(f"{path}: carries no config, so it was not written by PanoLLaVA.")
    return RunConfig.model_validate_json(told["config"]), Stage(told["stage"]), Architecture.model_validate_json(told["architecture"])


def metadata(path: Path) -> dict[str, str]:
    """What a .safetensors file says of itself. Raises BadInput."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise BadInput(f"{path}: not a safetensors file: {error}") from error
