"""LoRA on the language model: low-rank steps beside its frozen linear layers, and the same model again with the steps added in.

peft puts each layer into one of its own: the frozen weight is its `base_layer`, the steps are its `lora_A` and `lora_B`.
"""

from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from panollava.config import RunConfig
from panollava.errors import BadInput

ALL = "all-linear"


def add_adapters(language: nn.Module, config: RunConfig) -> None:
    """Adapters that change nothing yet. Raises BadInput for a target that no layer is called."""
    targets = ALL if config.lora_targets == (ALL,) else list(config.lora_targets)
    if targets != ALL:
        linear = {name.rpartition(".")[2] for name, module in language.named_modules() if isinstance(module, nn.Linear)}
        if unknown := sorted(set(targets) - linear):
            raise BadInput(
                f"lora_targets: no linear layer of {config.language_model} is called {', '.join(unknown)}; there are {', '.join(sorted(linear))}."
            )
    inject_adapter_in_model(
        LoraConfig(r=config.lora_r, lora_alpha=config.lora_scale, lora_dropout=config.lora_dropout, target_modules=targets), language
    )  # fmt: skip


def merge_adapters(model: nn.Module) -> None:
    """Add every step to its layer for good. A model without adapters stays as it is."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            adapted: Any = layer
            adapted.merge(safe_merge=True)
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, adapted.get_base_layer())
