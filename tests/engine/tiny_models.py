"""Tiny random models of the families that a run may be made of, written as `save_pretrained` writes the real ones."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace

from tests.engine.chat_templates import CHATML_TOKENS, CHATML_WITH_SYSTEM, GEMMA, LLAMA3, MISTRAL, PHI3, QWEN3, VISION_TOKENS, ZEPHYR

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIDE = {"image_size": 32, "patch_size": 8}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "siglip": ("SiglipModel", "SiglipImageProcessorPil", {}),
    "siglip_vision_model": ("SiglipVisionModel", "SiglipImageProcessorPil", {"intermediate_size": 64}),
    "siglip2": ("Siglip2Model", "Siglip2ImageProcessorPil", {}),
    "clip": ("CLIPModel", "CLIPImageProcessorPil", {}),
    "clip_vision_model": ("CLIPVisionModel", "CLIPImageProcessorPil", {"intermediate_size": 64}),
    "dinov2": ("Dinov2Model", "BitImageProcessorPil", {"mlp_ratio": 2, "image_size": 48}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "BitImageProcessorPil", {"mlp_ratio": 2, "num_register_tokens": 3}),
    "dinov3_vit": ("DINOv3ViTModel", "BitImageProcessorPil", {"intermediate_size": 64, "num_register_tokens": 2, "use_gated_mlp": True}),
    "vit": ("ViTModel", "ViTImageProcessorPil", {"intermediate_size": 64}),
}
"""By model_type: the class that is saved, the image processor beside it, and what its config has besides SMALL and SIDE."""
DUAL = {"siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model", "clip": "clip_vision_model"}


def write_encoder(directory: Path, model_type: str) -> Path:
    """A vision encoder, alone or with its text tower, and its image processor."""
    name, processor, more = ENCODERS[model_type]
    torch.manual_seed(1)
    model = getattr(transformers, name)(_encoder_config(model_type, more))
    model.save_pretrained(directory)
    getattr(transformers, processor)(**_processing(model_type)).save_pretrained(directory)
    return directory


def _encoder_config(model_type: str, more: dict[str, Any]) -> Any:
    if model_type not in DUAL:
        return transformers.CONFIG_MAPPING[model_type](**(SMALL | SIDE | more))
    tower = SMALL | SIDE | {"intermediate_size": 64} | ({"num_patches": 16} if model_type == "siglip2" else {})
    text = SMALL | {"intermediate_size": 64, "vocab_size": 50, "projection_size": 32}
    return transformers.CONFIG_MAPPING[model_type](vision_config=tower, text_config=text, projection_dim=32)


def _processing(model_type: str) -> dict[str, Any]:
    if model_type == "siglip2":
        return {"patch_size": 8, "max_num_patches": 16}
    if model_type.startswith(("clip", "dinov")):
        return {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "do_resize": True}
    return {"size": {"height": 32, "width": 32}}


@dataclass(frozen=True)
class Speaker:
    """A language model of a family: its config's type and oddities, its special tokens, and its chat template."""

    model_type: str
    tokens: tuple[str, ...]
    template: str | None
    eos: str
    bos: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    ends: tuple[str, ...] = ()
    """What its generation_config names besides."""
    spaced: bool = False
    """Whether its tokenizer is one of SentencePiece's, which begins every text with a space of its own."""


LANGUAGE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 2048, "initializer_range": 0.3}
_LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|image|>")
SPEAKERS = {
    "qwen2": Speaker("qwen2", CHATML_TOKENS + VISION_TOKENS, CHATML_WITH_SYSTEM, "<|endoftext|>", more={"tie_word_embeddings": True}),
    "qwen3": Speaker("qwen3", (*CHATML_TOKENS, *VISION_TOKENS, "<think>", "</think>"), QWEN3, "<|im_end|>", ends=("<|endoftext|>",)),
    "llama": Speaker("llama", _LLAMA3, LLAMA3, "<|eot_id|>", "<|begin_of_text|>", ends=("<|end_of_text|>",)),
    "smollm2": Speaker("llama", CHATML_TOKENS, CHATML_WITH_SYSTEM, "<|im_end|>", "<|im_start|>", {"tie_word_embeddings": True}),
    "gemma2": Speaker(
        "gemma2", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), GEMMA, "<eos>", "<bos>",
        {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0, "sliding_window": 16, "query_pre_attn_scalar": 16},
    ),
    "gemma3": Speaker(
        "gemma3_text", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"), GEMMA, "<eos>", "<bos>",
        {"sliding_window": 16, "query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"]}, ("<end_of_turn>",),
    ),
    "phi3": Speaker("phi3", ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"), PHI3, "<|endoftext|>", ends=("<|end|>",)),
    "mistral": Speaker("mistral", ("<s>", "</s>", "[INST]", "[/INST]", "[IMG]"), MISTRAL, "</s>", "<s>"),
    "tinyllama": Speaker("llama", ("<unk>", "<s>", "</s>"), ZEPHYR, "</s>", "<s>", spaced=True),
    "granite": Speaker("granite", CHATML_TOKENS, None, "<|endoftext|>", more={"logits_scaling": 8.0, "embedding_multiplier": 12.0}),
    "base": Speaker("llama", ("<|endoftext|>",), None, "<|endoftext|>", more={"attention_bias": True, "mlp_bias": True}),
}  # fmt: skip


def write_speaker(directory: Path, name: str) -> Path:
    """A language model and its byte-level tokenizer."""
    speaker = SPEAKERS[name]
    tokenizer = speaking(speaker)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (speaker.eos, speaker.bos or speaker.eos, *speaker.ends)}
    torch.manual_seed(2)
    given = LANGUAGE | {"vocab_size": len(tokenizer) + 8, "pad_token_id": None, "eos_token_id": ids[speaker.eos]} | speaker.more
    config = transformers.CONFIG_MAPPING[speaker.model_type](**given, bos_token_id=ids[speaker.bos] if speaker.bos else None)
    model = transformers.AutoModelForCausalLM.from_config(config)
    ends = [ids[speaker.eos], *(ids[token] for token in speaker.ends)]
    model.generation_config = transformers.GenerationConfig(eos_token_id=ends, do_sample=True, repetition_penalty=1.5)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def speaking(speaker: Speaker) -> Any:
    """Every byte a token, and the special ones."""
    core = _spaced() if speaker.spaced else _bytewise()
    more = [token for token in speaker.tokens if token not in (speaker.eos, speaker.bos)]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=speaker.eos, bos_token=speaker.bos, extra_special_tokens=more, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = speaker.template
    return tokenizer


def _bytewise() -> Tokenizer:
    core = Tokenizer(BPE({letter: at for at, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return core


def _spaced() -> Tokenizer:
    """As Llama 2 has it: letters, bytes for what has no letter, and one merge that a space of its own takes part in."""
    letters = ["▁", *map(chr, range(33, 127)), "▁a"]
    vocabulary = {token: at for at, token in enumerate(["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters])}
    core = Tokenizer(BPE(vocabulary, [("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return core
