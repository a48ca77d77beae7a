"""What the model is fed: a panorama cut by our own cutter, and a question in the prompt that the model was trained with.

The parts of the house are imported where they are used: this module is imported while transformers is still importing itself.
Legend: H, W panorama, B samples, V views, S view side, T tokens.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from panollava.hf.config import PanoLlavaConfig

if TYPE_CHECKING:
    from panollava.config import RunConfig
    from panollava.data.images import Reading
    from panollava.model.text import Prompter
    from panollava.views import Cutter, Image

IGNORED = {"padding", "return_tensors", "add_special_tokens"}
"""Prompts are padded on the left, given as tensors, and closed by the template, whatever is asked for."""


class PanoLlavaProcessor(ProcessorMixin):
    """Panoramas and questions -> `pixel_values` uint8 [B, V, S, S, 3], `input_ids` and `attention_mask` [B, T]."""

    def __init__(
        self, tokenizer: Any, layout: dict[str, Any], image_size: int, image_seq_length: int, max_text_length: int, chat_template: Any = None,
        allow_partial_pano: bool = False, fast_decode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(tokenizer, chat_template=chat_template)
        self.allow_partial_pano, self.fast_decode = allow_partial_pano, fast_decode
        self.layout, self.image_size, self.image_seq_length, self.max_text_length = layout, image_size, image_seq_length, max_text_length

    def to_dict(self) -> dict[str, Any]:
        """`processor_config.json`."""
        names = ("layout", "image_size", "image_seq_length", "max_text_length", "allow_partial_pano", "fast_decode")
        return {name: getattr(self, name) for name in names} | {"processor_class": type(self).__name__}

    @cached_property
    def prompter(self) -> "Prompter":
        from panollava.model.text import Prompter

        return Prompter(self.tokenizer, self.image_seq_length, self.max_text_length)

    @cached_property
    def run_config(self) -> "RunConfig":
        """The settings of the run that decide what the model sees of a panorama."""
        from panollava.config import RunConfig

        return RunConfig(**self.layout, allow_partial_pano=self.allow_partial_pano, fast_decode=self.fast_decode)

    @cached_property
    def cutter(self) -> "Cutter":
        from panollava.evaluation.answer import cutter_of

        return cutter_of(self.run_config, self.image_size)

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any) -> BatchFeature:
        """One question about each panorama. Images are files, addresses, Pillow images or uint8 arrays [H, W, 3]. Raises ValueError, BadInput."""
        import torch

        from panollava.training.data import reading_of

        if unknown := sorted(kwargs.keys() - IGNORED):
            raise ValueError(f"PanoLlavaProcessor takes no {', '.join(unknown)}: its prompts are those that the model was trained with.")
        queries, panoramas = [text] if isinstance(text, str) else list(text or ()), _flat(images)
        if not queries or len(queries) != len(panoramas):
            raise ValueError(f"Every question needs a panorama of its own; there are {len(queries)} questions and {len(panoramas)} panoramas.")
        ids, mask, _ = self.prompter.collate([self.prompter.question(query) for query in queries])
        reading = reading_of(self.run_config, self.cutter)
        views = np.stack([self.cutter(_panorama(each, reading)) for each in panoramas])
        return BatchFeature({"input_ids": ids, "attention_mask": mask, "pixel_values": torch.from_numpy(views)})

    def apply_chat_template(self, conversation: Any, chat_template: str | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """A user's turn with one image and one text, or several such conversations. Not tokenized it is the question alone, which `__call__` takes.

        Raises ValueError for more than that: the model was trained on single questions.
        """
        if chat_template is not None or kwargs.get("continue_final_message"):
            raise ValueError("PanoLLaVA answers single questions: it takes no other chat template and continues no answer.")
        several = bool(conversation) and not isinstance(conversation[0], dict)
        asked = [_asked(each) for each in (conversation if several else [conversation])]
        if not kwargs.get("tokenize", False):
            return [query for _, query in asked] if several else asked[0][1]
        made = self([image for image, _ in asked], [query for _, query in asked], **(kwargs.get("processor_kwargs") or {}))
        return made if kwargs.get("return_dict", False) else made["input_ids"]

    def post_process_image_text_to_text(self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """Token ids [B, T] as text, without the places of image tokens and without the ends that close an answer."""
        return [self.tokenizer.decode(self._said(row), skip_special_tokens=skip_special_tokens, **kwargs) for row in np.asarray(generated_outputs)]

    def _said(self, row: Any) -> list[int]:
        prompter = self.prompter
        ids = [token for token in row.tolist() if token >= 0 and token != prompter.image_token]
        while ids and ids[-1] in (*prompter.stop, prompter.pad):
            ids.pop()
        return ids


def _flat(images: Any) -> list[Any]:
    """One image, a list of them, or a list of lists of one each."""
    if not isinstance(images, list | tuple):
        return [] if images is None else [images]
    return [each for image in images for each in _flat(image)]


def _asked(conversation: Sequence[dict[str, Any]]) -> tuple[Any, str]:
    """The image and the question of a conversation."""
    content = conversation[0]["content"] if len(conversation) == 1 and conversation[0]["role"] == "user" else ()
    pieces = [] if isinstance(content, str) else list(content)
    images = [next((piece[key] for key in ("image", "url", "path") if key in piece), None) for piece in pieces if piece["type"] == "image"]
    texts = [piece["text"] for piece in pieces if piece["type"] == "text"]
    if len(images) != 1 or len(texts) != 1:
        raise ValueError("PanoLLaVA answers single questions: give one turn of the user whose content is one image and one text.")
    return images[0], texts[0]


def _panorama(image: Any, reading: "Reading") -> "Image":
    """uint8 [H, W, 3], as `panollava generate` reads it. Raises BadInput for what is no panorama."""
    from transformers.image_utils import load_image

    from panollava.data.images import ASPECT_ERROR, completed, load_panorama, off_aspect
    from panollava.errors import BadInput

    if isinstance(image, str | Path) and Path(image).is_file():
        pixels = load_panorama(Path(image), reading.at_least, partial=reading.partial)
    else:
        pixels = image if isinstance(image, np.ndarray) else np.asarray(load_image(image))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise BadInput(f"A panorama is an array of uint8 [H, W, 3]; this one is {pixels.dtype} {list(pixels.shape)}.")
    height, width = pixels.shape[:2]
    if off_aspect(width, height) <= ASPECT_ERROR:
        return pixels
    if not reading.partial:
        raise BadInput(
            f"{width} x {height} pixels are no panorama: it is twice as wide as high. A processor with allow_partial_pano takes a part of one."
        )
    return completed(Path("the image"), pixels)


AutoProcessor.register(PanoLlavaConfig, PanoLlavaProcessor, exist_ok=True)
