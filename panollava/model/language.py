"""The language model as a part: any causal one, asked through its own forward pass, so that its scales and caps of logits are its own.

Legend: B samples, T tokens, M supervised positions, C vocabulary.
"""

from typing import Any

from torch import Tensor
from transformers import GenerationConfig


def answer_logits(language: Any, embeddings: Tensor, attention_mask: Tensor, kept: Tensor) -> Tensor:
    """Embeddings [B, T, L], their mask [B, T] and the positions that count, bool [B, T] -> logits [M, C] in fp32.

    Only these positions reach the head: full logits of a real vocabulary cost more than the rest of the step.
    """
    chosen = language.get_output_embeddings().register_forward_pre_hook(lambda _head, inputs: (inputs[0][kept].unsqueeze(0),))
    try:
        logits: Tensor = language(inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False).logits
    finally:
        chosen.remove()
    return logits[0].float()


def plain_generation(language: Any) -> None:
    """Forget sampling and penalties that came with the weights; greedy answers must be greedy. Its own ends of text stay."""
    language.generation_config = GenerationConfig(eos_token_id=sorted(ends(language)) or None)  # type: ignore[no-untyped-call]


def ends(language: Any) -> set[int]:
    """Tokens that end a text by the model's own account."""
    told = language.generation_config.eos_token_id
    return set(told) if isinstance(told, list) else {told} - {None}
