"""How much of the text budget a language model's own turns take, from its tokenizer's files alone. Torch-free."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from panollava import template
from panollava.architecture import found
from panollava.errors import BadInput

CONFIG, TOKENIZER, TEMPLATE = "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"
Json = dict[str, Any]


def around(model: str) -> int | None:
    """Text tokens of a prompt without its query and answer; None where the files are not here, or are not all that transformers reads.

    Raises BadInput for a chat template that cannot be used.
    """
    tokenizer, config, written = found(model, TOKENIZER), found(model, CONFIG), found(model, TEMPLATE)
    if tokenizer is None or config is None:
        return None
    return _around(tokenizer, config, written, tokenizer.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _around(tokenizer: Path, config: Path, written: Path | None, _changed: int) -> int | None:
    try:
        light: Any = LightTokenizer(tokenizer, json.loads(config.read_bytes()), written.read_text() if written else None)
    except TemplateSyntaxError:
        return None  # it needs what only transformers adds to Jinja
    except Exception as error:  # the tokenizers library raises nothing more precise
        raise BadInput(f"language_model: {tokenizer.parent}: its tokenizer cannot be read: {str(error).splitlines()[0]}") from error
    turns = template.template_of(light)
    look, looked = template.around_image(light)
    return len(turns.head) + len(look) + len(looked) + len(template.encode(light, "\n", inside=turns.inside)) + len(turns.tail)


class LightTokenizer:
    """As much of a tokenizer of transformers as `template.py` asks for, without importing it."""

    def __init__(self, file: Path, config: Json, written: str | None) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))
        self._names = {name: _content(value) for name, value in config.items() if name.endswith("_token") and value}
        own = config.get("chat_template")
        self.chat_template: str | None = written or (own if isinstance(own, str) else None)
        self._jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        self._jinja.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: "today"}
        self._jinja.parse(self.chat_template or "")
        added = [token for token, said in self._tokenizer.get_added_tokens_decoder().items() if said.special]
        named = [token for name in self._names if (token := self._id(name)) is not None]
        self.all_special_ids = sorted({*added, *named})
        self.bos_token_id, self.eos_token_id = self._id("bos_token"), self._id("eos_token")

    def _id(self, name: str) -> int | None:
        token = self._names.get(name)
        return None if token is None else self._tokenizer.token_to_id(token)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._tokenizer.get_vocab())

    def __call__(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> dict[str, list[int]]:
        self._tokenizer.encode_special_tokens = split_special_tokens
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def apply_chat_template(self, messages: list[dict[str, str]], *, chat_template: str | None = None, tokenize: bool, **options: Any) -> str:
        assert not tokenize
        return self._jinja.from_string(chat_template or self.chat_template or "").render(messages=messages, **self._names, **options)


def _content(token: Any) -> str:
    """A special token is written as itself, or with how it is to be matched."""
    return str(token["content"] if isinstance(token, dict) else token)


def _refuse(why: str) -> None:
    raise ValueError(why)
