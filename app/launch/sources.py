"""What a run starts from, as the launch form asks for it: weights of the hub, of a local directory, or of a checkpoint.

Only the form has this choice. A config says the same by the names of its two models and by `init_from`, and so does an address; here one is
made from the other. Looks whether there is a directory of a model's name, and reads nothing.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from app.i18n import _
from app.launch.preview import Error
from panollava.architecture import is_directory
from panollava.config import RunConfig
from panollava.refusals import MODELS

LOCAL = {model: f"local.{model}" for model in MODELS}
"""Each model's second input, for the path of its directory."""
HUB_IDS = {model: RunConfig.model_fields[model].default for model in MODELS}
"""What to name instead of a path, where one has to be named."""
PICKED = "start_from"
"""The list of checkpoints; a path is typed into `init_from`."""


class Weights(StrEnum):
    """The choice. What stands in the inputs of the other two is kept for the way back, and counts for nothing."""

    hub = "hub"
    local = "local"
    checkpoint = "checkpoint"


def with_directories(settings: Mapping[str, str]) -> dict[str, str]:
    """With what stands in the second inputs while nobody has typed there: a name that means a directory stands in both."""
    return {**settings, **{local: settings[model] if is_directory(settings[model]) else "" for model, local in LOCAL.items()}}


def natural(texts: Mapping[str, str]) -> Weights:
    """The choice that makes what stands in these inputs count."""
    if texts["init_from"] or texts.get(PICKED):
        return Weights.checkpoint
    return Weights.local if any(texts[local] for local in LOCAL.values()) else Weights.hub


def settings(weights: Weights, texts: Mapping[str, str]) -> dict[str, str]:
    """What the choice and its inputs come to. A model whose directory is not named is the one of its first input."""
    models = {model: (weights is Weights.local and texts[local]) or texts[model] for model, local in LOCAL.items()}
    checkpoint = texts["init_from"] or texts[PICKED]
    return models | {"init_from": checkpoint if weights is Weights.checkpoint else ""}


def errors(weights: Weights, texts: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[Error]:
    """Where the choice and its inputs do not agree. `values`: what the whole form comes to."""
    return {Weights.hub: _hub_errors, Weights.local: _local_errors, Weights.checkpoint: _checkpoint_errors}[weights](texts, values)


def _hub_errors(_texts: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[Error]:
    text = _("This names a directory of this machine. Choose “Local directory” to start from it, or name a model of the hub, such as {id}.")
    for model in LOCAL:
        if is_directory(values[model]):
            yield model, text.format(id=HUB_IDS[model])


def _local_errors(texts: Mapping[str, str], values: Mapping[str, Any]) -> Iterator[Error]:
    """A name that means no directory would be taken for a hub id."""
    for model, local in LOCAL.items():
        if texts[local] and not is_directory(texts[local]):
            yield model, _("There is no directory {path}.").format(path=texts[local])
    if not any(texts[local] or is_directory(values[model]) for model, local in LOCAL.items()):
        yield MODELS[0], _("Name the directory of one model at least, or choose “Hub weights”.")


def _checkpoint_errors(texts: Mapping[str, str], _values: Mapping[str, Any]) -> Iterator[Error]:
    picked, typed = texts[PICKED], texts["init_from"]
    if not (picked or typed):
        yield "init_from", _("Choose the checkpoint to continue from.")
    if picked and typed and picked != typed:
        yield "init_from", _("Choose a checkpoint of the list or name a file, not both.")
