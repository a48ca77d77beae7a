"""A language model's own chat template as token ids: what stands before a question, between question and answer, and behind an answer.

A template is rendered once with stand-ins for question and answer, cut at them, and checked: joined with other words, the pieces must give
what the template itself gives. Only its turns are kept; a default system turn and a date would eat the text budget of every sample.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from panollava.errors import BadInput

log = logging.getLogger("panollava")
TURN, END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN_HEAD, PLAIN_TAIL = "Question:\n", "\nAnswer:\n"
ASKED, SAID, ASKED_AGAIN = "QqzxQ", "AqzxA", "RqzxR"
PROBE = ("what is behind me?", "a red circle.", "and in front?")


@dataclass(frozen=True)
class Template:
    """Token ids around a question and its answer. `end` closes an answer and is learned; `stop` are all that end one when it is generated."""

    head: list[int]
    tail: list[int]
    end: int
    stop: list[int]
    inside: bool = False
    """Whether a question is encoded as a text's continuation: some tokenizers begin every text with a space of their own."""
    answer_inside: bool = False


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """Raises BadInput naming language_model for a template that cannot be used."""
    if tokenizer.chat_template:
        return _chat(tokenizer, None)
    if {TURN, END} <= tokenizer.get_vocab().keys():
        return _chat(tokenizer, CHATML)
    return _plain(tokenizer)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, inside: bool = False) -> list[int]:
    """User text: what looks like a special token is spelled out, so that a question cannot close its own turn. `inside`: as behind a new line."""
    if inside:
        return encode(tokenizer, "\n" + text)[len(encode(tokenizer, "\n")) :]
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _chat(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Template:
    render = partial(_render, tokenizer, template)
    before, tail = _cut(render([ASKED], True), ASKED)
    _, between, _ = _cut(render([ASKED, SAID, ASKED_AGAIN], True), SAID, ASKED_AGAIN)
    _, closing = _cut(render([ASKED, SAID], False), SAID)
    pieces = partial(_pieces, tokenizer)
    shared = _common(pieces(closing), pieces(between))  # what closes an answer; behind it the next turn of the user begins
    special = set(tokenizer.all_special_ids)
    ends = [token for token in shared or pieces(closing) if token in special]
    if not ends:
        raise _unusable("no special token closes an answer in it")
    opening = pieces(between)[len(shared) :]
    # SmolLM2 calls the opening of a turn its begin of text: once is enough.
    begin = [tokenizer.bos_token_id] if _begins(tokenizer, pieces(before)) and not _begins(tokenizer, opening) else []
    stop = sorted({ends[0]} | ({tokenizer.eos_token_id} - {None}))
    found = Template([*begin, *opening], pieces(tail), ends[0], stop, _prefixes(tokenizer), _prefixes(tokenizer))
    _check_question(tokenizer, template, found)
    return replace(found, answer_inside=_answers_inside(tokenizer, template, found))


def _prefixes(tokenizer: PreTrainedTokenizerBase) -> bool:
    return encode(tokenizer, "a", inside=True) != encode(tokenizer, "a")


def _check_question(tokenizer: PreTrainedTokenizerBase, template: str | None, found: Template) -> None:
    """The pieces joined with another question must be what the template gives for it, on a line of its own or else without one."""
    for question in ("\n" + PROBE[0], PROBE[0]):
        joined = [*found.head[-1:], *encode(tokenizer, question, inside=found.inside), *found.tail]
        theirs = _pieces(tokenizer, _render(tokenizer, template, [question], True))
        if theirs[-len(joined) :] == joined:
            return
    raise _unusable(f"a question in it reads {tokenizer.decode(theirs[-len(joined) :])!r}, and its parts join to {tokenizer.decode(joined)!r}")


def _answers_inside(tokenizer: PreTrainedTokenizerBase, template: str | None, found: Template) -> bool:
    """How an answer is to be encoded for it and its end to be what the template gives."""
    question, answer, _ = PROBE
    told = _pieces(tokenizer, _render(tokenizer, template, [question, answer], False))
    for inside in dict.fromkeys((found.inside, False)):
        said = [*encode(tokenizer, answer, inside=inside), found.end]
        if any(told[at : at + len(said)] == said for at in range(len(told))):
            return inside
    raise _unusable(f"an answer in it reads {tokenizer.decode(told)!r}, which does not hold {tokenizer.decode(said)!r}")


def _render(tokenizer: PreTrainedTokenizerBase, template: str | None, said: list[str], to_answer: bool) -> str:
    """Question, answer, question... as text. A model that can think aloud is asked not to: the answers are captions."""
    messages = [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(said)]
    options: dict[str, Any] = {"chat_template": template} if template else {}
    try:
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=to_answer, enable_thinking=False, **options)
        )  # fmt: skip
    except Exception as error:  # a template is a program of somebody else's: it may raise anything
        raise _unusable(str(error).splitlines()[0] if str(error) else repr(error)) from error


def _cut(text: str, *marks: str) -> list[str]:
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise _unusable("it does not hold what was said")
        parts.append(before)
    return [*parts, text]


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _common(one: list[int], other: list[int]) -> list[int]:
    """What both begin with."""
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:same]


def _begins(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> bool:
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _plain(tokenizer: PreTrainedTokenizerBase) -> Template:
    """For a base model that was never taught turns."""
    end = tokenizer.eos_token_id
    if end is None:
        raise BadInput("language_model: its tokenizer has neither a chat template nor an end-of-sequence token, so nothing could end an answer.")
    log.info("the language model has no chat template: its prompts read %r", f"{PLAIN_HEAD}...{PLAIN_TAIL}...")
    adds_begin = _begins(tokenizer, list(tokenizer("a")["input_ids"]))
    head = [*([tokenizer.bos_token_id] if adds_begin else []), *_pieces(tokenizer, PLAIN_HEAD)]
    inside = _prefixes(tokenizer)
    return Template(head, encode(tokenizer, PLAIN_TAIL, inside=inside), end, [end], inside, inside)


def _unusable(why: str) -> BadInput:
    return BadInput(f"language_model: its chat template cannot be used: {why}.")
