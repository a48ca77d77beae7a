"""How many parameters a language model has, from its `config.json` where the family is known, else from the header of its weights. Torch-free.

Legend: h width, q and k widths of all query and all key heads, f width of the feed-forward.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]
LONGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class Decoder:
    """How a family differs from Llama: a bias or a norm more, and what its config leaves out."""

    qkv_bias: bool = False
    head_norms: bool = False
    norms: int = 2
    tied: bool = False
    head_dim: int | None = None
    fused: bool = False
    """Whether one layer gives queries, keys and values, and one both halves of the feed-forward."""


DECODERS = {
    "llama": Decoder(),
    "mistral": Decoder(),
    "granite": Decoder(),
    "phi3": Decoder(fused=True),
    "smollm3": Decoder(tied=True),
    "qwen2": Decoder(qkv_bias=True),
    "qwen3": Decoder(head_norms=True),
    "gemma": Decoder(tied=True, head_dim=256),
    "gemma2": Decoder(tied=True, head_dim=256, norms=4),
    "gemma3_text": Decoder(tied=True, head_dim=256, norms=4, head_norms=True),
}


def parameters(config: Config) -> int | None:
    """Parameters of a language model, its tied head counted once; None for a family that is not in the table."""
    family = DECODERS.get(config["model_type"])
    if family is None:
        return None
    h, f, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    per_layer = _attention(config, family) + 3 * h * f + (2 * f + h if config.get("mlp_bias") else 0) + family.norms * h
    tied = config.get("tie_word_embeddings")
    heads = 1 if (family.tied if tied is None else tied) else 2
    return int(heads * vocabulary * h + config["num_hidden_layers"] * per_layer + h)


def linear_layers(config: Config) -> dict[str, tuple[int, int]] | None:
    """The linear layers of one block by name, each with its inputs and outputs; None for a family that is not in the table."""
    family = DECODERS.get(config["model_type"])
    if family is None:
        return None
    h, f, (_, q, k) = config["hidden_size"], config["intermediate_size"], _heads(config, family)
    ends = {"o_proj": (q, h), "down_proj": (f, h)}
    if family.fused:
        return {"qkv_proj": (h, q + 2 * k), "gate_up_proj": (h, 2 * f)} | ends
    return {"q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k), "gate_proj": (h, f), "up_proj": (h, f)} | ends


def adapters(config: Config, rank: int, targets: tuple[str, ...]) -> int | None:
    """Parameters of LoRA adapters of a rank on these layers of every block; None for a family that is not in the table."""
    layers = linear_layers(config)
    if layers is None:
        return None
    chosen = layers if targets == ("all-linear",) else {name: layers[name] for name in targets if name in layers}
    return int(config["num_hidden_layers"] * sum(rank * (inputs + outputs) for inputs, outputs in chosen.values()))


def _heads(config: Config, family: Decoder) -> tuple[int, int, int]:
    """Widths of one head, of all query heads, of all key heads."""
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or family.head_dim or config["hidden_size"] // heads
    return head, heads * head, (config.get("num_key_value_heads") or heads) * head


def _attention(config: Config, family: Decoder) -> int:
    h, (head, q, k) = config["hidden_size"], _heads(config, family)
    inner, outer = (q + 2 * k, h) if config.get("attention_bias") else (q + 2 * k if family.qkv_bias else 0, 0)
    return int(h * (q + 2 * k) + q * h + inner + outer + (2 * head if family.head_norms else 0))


def stored(directory: Path) -> int | None:
    """Numbers in the safetensors files of a directory, from their headers; None where there are none."""
    files = sorted(directory.glob("*.safetensors"))
    return sum(_stored(file) for file in files) if files else None


def _stored(file: Path) -> int:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"{file}: its header claims {length:,} bytes, so it is no safetensors file.")
        header = json.loads(opened.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
