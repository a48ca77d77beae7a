"""The one prompt for training and answering, and the labels that go with it.

Built by joining token ids, never by splitting text: what is supervised is exactly the answer and its end. User text is
encoded with special tokens switched off, so a query cannot close its own turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from panollava.template import SHORTEST_QUERY, around_image, check_room, encode, template_of

IGNORE = -100
IMAGES = ("<|image_pad|>", "<image>", "<|image|>", "<image_soft_token>", "[IMG]")
"""Tokens that models have to stand for a piece of an image, the first that there is."""
NO_TOKEN = -200
"""Stands for a piece of an image where the tokenizer has no token to: no id, so no text can be mistaken for it."""


@dataclass(frozen=True)
class Encoded:
    """One sample: token ids, and labels of the same length (IGNORE except on the answer)."""

    ids: list[int]
    labels: list[int]
    truncated: bool


def image_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that marks the places of image tokens in a prompt. What is there is replaced, so the vocabulary never changes.

    Only a special token will do: another one would be read out of a question that spells it.
    """
    special = {said.content: token for token, said in tokenizer.added_tokens_decoder.items() if said.special}
    return next((special[token] for token in IMAGES if token in special), NO_TOKEN)


class Prompter:
    """The model's own turns with the panorama first in the user's. As ChatML:

    `<|im_start|>user\\n<|vision_start|>...<|vision_end|>\\n{query}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>`
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int, max_text_length: int) -> None:
        self.tokenizer, self.max_text_length = tokenizer, max_text_length
        template = self._template = template_of(tokenizer)
        self.image_token, self.end, self.stop = image_token(tokenizer), template.end, template.stop
        look, looked = around_image(tokenizer)
        self.head = [*template.head, *look, *[self.image_token] * image_tokens, *looked, *self._encode("\n")]
        self.tail = template.tail
        self.pad: int = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.room = check_room(max_text_length, len(self.head) - image_tokens + len(self.tail))

    def _encode(self, text: str) -> list[int]:
        return encode(self.tokenizer, text, inside=self._template.inside)

    def question(self, query: str) -> Encoded:
        """The prompt alone, ready for an answer to follow."""
        words = self._encode(query.strip())
        kept = words[: self.room]
        return Encoded([*self.head, *kept, *self.tail], [IGNORE] * (len(self.head) + len(kept) + len(self.tail)), len(kept) < len(words))

    def exchange(self, query: str, answer: str) -> Encoded:
        """Prompt and answer. Where the room is short the query is cut first; a cut answer has no end to learn."""
        words, said = self._encode(query.strip()), [*encode(self.tokenizer, answer.strip(), inside=self._template.answer_inside), self.end]
        kept = words[: max(SHORTEST_QUERY, self.room - len(said))]
        spoken = said[: self.room - len(kept)]
        prompt = [*self.head, *kept, *self.tail]
        return Encoded([*prompt, *spoken], [*[IGNORE] * len(prompt), *spoken], len(kept) < len(words) or len(spoken) < len(said))

    def collate(self, samples: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
        """input_ids, attention_mask, labels [B, T], padded on the left for generation. NumPy reads lists four times as fast as torch."""
        width = max(len(sample.ids) for sample in samples)
        padding = [width - len(sample.ids) for sample in samples]
        ids = torch.from_numpy(np.array([[self.pad] * before + sample.ids for before, sample in zip(padding, samples, strict=True)]))
        mask = (torch.arange(width) >= torch.tensor(padding).unsqueeze(1)).long()
        labels = torch.from_numpy(np.array([[IGNORE] * before + sample.labels for before, sample in zip(padding, samples, strict=True)]))
        return ids, mask, labels

    def decode(self, ids: Tensor) -> list[str]:
        """Answers as text [B], up to their end."""
        return [str(self.tokenizer.decode(self._until_end(row), skip_special_tokens=True)).strip() for row in ids.tolist()]

    def _until_end(self, row: list[int]) -> list[int]:
        """An end that is no special token would be read out."""
        return row[: next((at for at, token in enumerate(row) if token in self.stop), len(row))]
