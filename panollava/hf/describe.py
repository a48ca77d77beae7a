"""A model's own description: the config that puts it together again, and its tokenizer as text. With both, a file of weights stands alone."""

import base64
import json
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from panollava import layouts
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.hf.config import BRIDGE, LAYOUT, PanoLlavaConfig
from panollava.model.assemble import assemble
from panollava.model.language import ends
from panollava.model.panollava import PanoLlava
from panollava.model.parts import Built
from panollava.stages import Stage
from panollava.training.weights import describe, metadata

MODEL, TOKENIZER = "model", "tokenizer"
"""Entries of a file's metadata."""


def model_config(model: PanoLlava, config: RunConfig, *, image_size: int, image_tokens: int, max_text_length: int) -> PanoLlavaConfig:
    """What `assemble` needs to make a model like this one."""
    vision, language = _described(model.vision), _described(model.language)
    return PanoLlavaConfig(
        vision_config=vision, text_config=language, **{name: getattr(config, name) for name in (*LAYOUT, *BRIDGE)},
        image_size=image_size, image_mean=model.mean.flatten().tolist(), image_std=model.std.flatten().tolist(),
        image_token_id=model.image_token, image_seq_length=image_tokens, max_text_length=max_text_length, end_token_ids=sorted(ends(model.language)),
        vision_model=public(config.vision_model), language_model=public(config.language_model),
        tie_word_embeddings=bool(language.get("tie_word_embeddings")), dtype="float32",
    )  # fmt: skip


def _described(part: Any) -> dict[str, Any]:
    """A part's config without the place that it came from."""
    told: dict[str, Any] = part.config.to_dict()
    return {name: value for name, value in told.items() if name != "_name_or_path"} | {"dtype": "float32"}


def public(name: str) -> str:
    """A hub id as it is; of a directory the last part, because where it lay is nobody's business."""
    return Path(name).name if Path(name).is_absolute() or Path(name).is_dir() else name


def self_description(built: Built, config: RunConfig, stage: Stage) -> dict[str, str]:
    """Metadata that make a complete file of weights stand alone; none for a model without its language model."""
    if built.model.language is None:
        return {}
    sizes = {"image_size": built.architecture.image_size, "image_tokens": built.image_tokens}
    told = model_config(built.model, config, **sizes, max_text_length=config.stages[stage].max_text_length)
    return {MODEL: told.to_json_string(use_diff=False), TOKENIZER: pack(built.tokenizer)}


def stands_alone(path: Path) -> bool:
    return path.suffix == ".safetensors" and {MODEL, TOKENIZER} <= metadata(path).keys()


def rebuild(path: Path) -> Built:
    """The model that a file describes, weights not yet filled in; nothing but the file is read. Raises BadInput."""
    told, architecture = metadata(path), describe(path)[2]
    try:
        config, tokenizer = PanoLlavaConfig.from_dict(json.loads(told[MODEL])), unpack(told[TOKENIZER])
    except (ValueError, zlib.error, OSError) as error:
        raise BadInput(f"{path}: its description of the model cannot be read: {error}") from error
    return Built(assemble(config), tokenizer, architecture, layouts.layout(config.run_config()), config.image_seq_length)


def check_complete(model: PanoLlava, path: Path) -> None:
    """Refuse a file that leaves a tensor of a rebuilt model as it began. Of weights that are tied, one is enough. Raises BadInput."""
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    state = model.state_dict()
    filled = {tensor.data_ptr() for name, tensor in state.items() if name in names}
    if lacking := sorted(name for name, tensor in state.items() if tensor.data_ptr() not in filled):
        raise BadInput(f"{path}: lacks {len(lacking)} of its tensors, such as {lacking[0]}.")


def pack(tokenizer: PreTrainedTokenizerBase) -> str:
    """The files of a tokenizer as one line of text, a third of their size or less."""
    with TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(Path(directory).iterdir())}
    return base64.b64encode(zlib.compress(json.dumps(files).encode())).decode()


def unpack(packed: str) -> PreTrainedTokenizerBase:
    files: dict[str, str] = json.loads(zlib.decompress(base64.b64decode(packed)))
    with TemporaryDirectory() as directory:
        for name, content in files.items():
            (Path(directory) / Path(name).name).write_bytes(base64.b64decode(content))
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory)
    return tokenizer
