"""The one prompt for training and answering, and the labels that go with it.

Built by joining token ids, never by splitting text: what is supervised is exactly the answer and its end. User text is
encoded with special tokens switched off, so a query cannot close its own turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from panollava.errors import BadInput

IGNORE = -100
TURN, END, IMAGE = "<|im_start|>", "<|im_end|>", "<|image_pad|>"
LOOK, LOOKED = "<|vision_start|>", "<|vision_end|>"
SHORTEST_QUERY = 8
"""A long query is cut before the answer is, but not below so many tokens."""


@dataclass(frozen=True)
class Encoded:
    """One sample: token ids, and labels of the same length (IGNORE except on the answer)."""

    ids: list[int]
    labels: list[int]
    truncated: bool


class Prompter:
    """ChatML with the panorama first in the user's turn.

    `<|im_start|>user\\n<|vision_start|>...<|vision_end|>\\n{query}<|im_end|>\\n<|im_start|>assistant\\n{answer}<|im_end|>`
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int, max_text_length: int) -> None:
        self.tokenizer, self.max_text_length = tokenizer, max_text_length
        special = {token: self._special(token) for token in (TURN, END, IMAGE, LOOK, LOOKED)}
        self.image_token, self.end = special[IMAGE], special[END]
        newline = self._encode("\n")
        self.head = [special[TURN], *self._encode("user\n"), special[LOOK], *[self.image_token] * image_tokens, special[LOOKED], *newline]
        self.tail = [self.end, *newline, special[TURN], *self._encode("assistant\n")]
        self.stop = sorted({self.end} | ({tokenizer.eos_token_id} - {None}))
        self.pad: int = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.room = max_text_length - (len(self.head) - image_tokens + len(self.tail))
        if self.room < SHORTEST_QUERY + 2:
            raise BadInput(
                f"max_text_length is {max_text_length}, of which the prompt leaves {self.room}; a query with its answer needs {SHORTEST_QUERY + 2}."
            )

    def _special(self, token: str) -> int:
        if token not in self.tokenizer.get_vocab():
            raise BadInput(f"language_model: its tokenizer has no {token} token; PanoLLaVA writes ChatML prompts as Qwen's models read them.")
        return self.tokenizer.get_vocab()[token]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def question(self, query: str) -> Encoded:
        """The prompt alone, ready for an answer to follow."""
        words = self._encode(query.strip())
        kept = words[: self.room]
        return Encoded([*self.head, *kept, *self.tail], [IGNORE] * (len(self.head) + len(kept) + len(self.tail)), len(kept) < len(words))

    def exchange(self, query: str, answer: str) -> Encoded:
        """Prompt and answer. Where the room is short the query is cut first; a cut answer has no end to learn."""
        words, said = self._encode(query.strip()), [*self._encode(answer.strip()), self.end]
        kept = words[: max(SHORTEST_QUERY, self.room - len(said))]
        spoken = said[: self.room - len(kept)]
        prompt = [*self.head, *kept, *self.tail]
        return Encoded([*prompt, *spoken], [*[IGNORE] * len(prompt), *spoken], len(kept) < len(words) or len(spoken) < len(said))

    def collate(self, samples: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
        """input_ids, attention_mask, labels [B, T], padded on the left, where generation needs the padding."""
        width = max(len(sample.ids) for sample in samples)
        padding = [width - len(sample.ids) for sample in samples]
        ids = torch.tensor([[self.pad] * before + sample.ids for before, sample in zip(padding, samples, strict=True)])
        mask = (torch.arange(width) >= torch.tensor(padding).unsqueeze(1)).long()
        labels = torch.tensor([[IGNORE] * before + sample.labels for before, sample in zip(padding, samples, strict=True)])
        return ids, mask, labels

    def decode(self, ids: Tensor) -> list[str]:
        """Answers as text [B], without their end tokens."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
