"""A launch form as somebody fills it in: what stands in its fields, and the request that this is. Opens no files, reads no rows."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import ImmutableMultiDict

from app.launch import fields, sources
from app.launch.preview import Error, nest
from app.launch.sources import LOCAL, PICKED, Weights
from app.launch.starts import CONTINUE, Start
from app.requests import digest
from app.runs import request
from app.runs.schemas import RunRequest
from panollava.config import RunConfig, flat, validated
from panollava.errors import BadInput

Given = ImmutableMultiDict[str, Any]
"""A posted form, or the query of an address that fills it in beforehand: values by dotted name."""
LONGEST_KEY = 100


@dataclass(frozen=True)
class Draft:
    """A form and the request it makes."""

    start: Start
    texts: dict[str, str]
    """What stands in every input: one for each field, and those that `sources` adds."""
    first: dict[str, str]
    """What stood in it at the start."""
    weights: Weights
    first_weights: Weights
    changed: list[str]
    """Names of settings that are something else than at the start."""
    checkpoint: str
    """The path of the one to start from; empty if it is to be none."""
    priority: str
    key: str
    """Made when the form was shown, so that pressing twice is one request."""
    request: RunRequest
    errors: list[Error]
    """What only the form can know to be wrong."""

    @property
    def picked(self) -> str:
        """The checkpoint chosen from the list, if it is in it; the one that was typed is `texts["init_from"]`."""
        return self.texts[PICKED]

    def input(self, setting: str) -> str:
        """The input that a setting is taken from."""
        return LOCAL.get(setting, setting) if self.weights is Weights.local else setting

    def request_key(self, config: RunConfig) -> str:
        """The same form saying the same is the same request; changed and sent again, it is another."""
        return f"form-{self.key}-{digest(config.model_dump(mode='json'), self.request.priority)[:16]}"


def read(start: Start, given: Given) -> Draft:
    """The form as given; where it says nothing, as at the start."""
    first = sources.with_directories(fields.texts(start.values))
    named = sources.with_directories(first | _texts(given, fields.fields()))
    texts = named | _texts(given, LOCAL.values()) | _checkpoint(given, named["init_from"])
    weights = _weights(start, texts, _text(given, "weights"))
    settings = sources.settings(weights, texts)
    values = fields.values(texts | settings, start.values)
    asked, errors = _request(start, values, _text(given, "priority"))
    return Draft(
        start=start,
        texts=texts,
        first=first,
        weights=weights,
        first_weights=_weights(start, first),
        changed=[name for name, value in values.items() if value != start.values[name]],
        checkpoint=settings["init_from"],
        priority=_text(given, "priority") or "0",
        key=_text(given, "request_key")[:LONGEST_KEY] or secrets.token_hex(8),
        request=asked,
        errors=[*errors, *sources.errors(weights, texts, values)],
    )


def _weights(start: Start, texts: dict[str, str], chosen: str = "") -> Weights:
    """The choice; where none is made, what the preset is about, or what stands in the inputs."""
    if chosen in list(Weights):
        return Weights(chosen)
    return Weights.checkpoint if start.preset == CONTINUE else sources.natural(texts)


def _checkpoint(given: Given, named: str) -> dict[str, str]:
    """A path that comes from elsewhere than the form may be one of the list."""
    return _texts(given, (PICKED, "init_from")) if PICKED in given else {PICKED: named, "init_from": ""}


def _texts(given: Given, names: Iterable[str]) -> dict[str, str]:
    return {name: _text(given, name) for name in names if name in given}


def _text(given: Given, name: str) -> str:
    """Several values of one name are the ticked boxes of one field."""
    return ",".join(value.strip() for value in given.getlist(name) if isinstance(value, str) and value.strip())


def _request(start: Start, values: dict[str, Any], priority: str) -> tuple[RunRequest, list[Error]]:
    """Only what differs from the preset is asked for."""
    base = dict(flat(validated(RunConfig, request.base(start.preset)).model_dump(mode="json")))
    asked = RunRequest(preset=start.preset, config=nest({name: value for name, value in values.items() if value != base[name]}))
    try:
        return validated(RunRequest, asked.model_dump() | {"priority": priority or 0}), []
    except BadInput as error:
        return asked, list(error.fields)
