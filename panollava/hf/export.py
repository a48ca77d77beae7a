"""A checkpoint as a directory that transformers loads by itself: adapters merged, processor, generation settings and a model card beside it."""

import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from panollava import rundir
from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer, load
from panollava.hf.card import model_card
from panollava.hf.config import LAYOUT
from panollava.hf.describe import model_config
from panollava.hf.modeling import PanoLlavaForConditionalGeneration
from panollava.hf.processing import PanoLlavaProcessor
from panollava.model.language import ends
from panollava.model.lora import merge_adapters
from panollava.model.text import Prompter
from panollava.training.weights import describe

MAX_NEW_TOKENS = 64
"""Longest answer where none is asked for, as `panollava generate` has it."""


def export(checkpoint: Path, directory: Path, evaluation: Path | None = None, between: Callable[[], None] = lambda: None) -> Path:
    """The directory, whole or not at all. What `between` raises after a step ends it. Raises BadInput for a directory that holds something or
    cannot be written, and for what is no checkpoint that answers."""
    describe(checkpoint)  # a wrong path must not leave a directory behind
    directory = directory.resolve()
    rundir.check_replaceable(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BadInput(f"{directory}: holds something already; name a new directory.")
    answerer = load(checkpoint)
    between()
    merge_adapters(answerer.model)
    card = model_card(checkpoint, answerer, evaluation)
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write(answerer, part)
        (part / "README.md").write_text(card, encoding="utf-8")
        between()
        part.replace(directory)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return directory


def _write(answerer: Answerer, directory: Path) -> None:
    model, prompter, run = answerer.model.cpu(), answerer.prompter, answerer.config
    sizes = {"image_size": answerer.cutter.size, "max_text_length": prompter.max_text_length}
    config = model_config(model, run, **sizes, image_tokens=prompter.head.count(prompter.image_token))
    whole = PanoLlavaForConditionalGeneration(config, model)
    stop = sorted({*prompter.stop, *ends(model.language)})
    whole.generation_config = GenerationConfig(eos_token_id=stop, pad_token_id=prompter.pad, max_new_tokens=MAX_NEW_TOKENS)
    whole.save_pretrained(directory)
    layout = {name: getattr(run, name) for name in LAYOUT}
    sizes |= {"image_seq_length": config.image_seq_length}
    processor = PanoLlavaProcessor(_padding(prompter), layout, **sizes, allow_partial_pano=run.allow_partial_pano, fast_decode=run.fast_decode)
    processor.save_pretrained(directory)


def _padding(prompter: Prompter) -> PreTrainedTokenizerBase:
    """The tokenizer with a pad token, without which a pipeline takes no batch."""
    tokenizer = prompter.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(prompter.pad)
    return tokenizer
