"""A launch form as somebody fills it in: what stands in its fields, and the request that this is. Reads no files and no rows."""

import secrets
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import ImmutableMultiDict

from app.i18n import _
from app.requests import digest
from app.runs import launch_fields, request
from app.runs.launch import Error, nest
from app.runs.launch_start import CONTINUE, Start
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
    """What stands in every field."""
    first: dict[str, str]
    """What stood in it at the start."""
    changed: list[str]
    """Names of fields that say something else than at the start."""
    picked: str
    """The checkpoint chosen from the list, if it is in it; the one that was typed is `texts["init_from"]`."""
    priority: str
    key: str
    """Made when the form was shown, so that pressing twice is one request."""
    request: RunRequest
    errors: list[Error]
    """What only the form can know to be wrong."""

    def request_key(self, config: RunConfig) -> str:
        """The same form saying the same is the same request; changed and sent again, it is another."""
        return f"form-{self.key}-{digest(config.model_dump(mode='json'), self.request.priority)[:16]}"


def read(start: Start, given: Given) -> Draft:
    """The form as given; where it says nothing, as at the start."""
    first = launch_fields.texts(start.values)
    texts = first | {name: _text(given, name) for name in launch_fields.fields() if name in given}
    picked, typed = (_text(given, "start_from"), texts["init_from"]) if "start_from" in given else (texts["init_from"], "")
    values = launch_fields.values(texts | {"init_from": typed or picked}, start.values)
    asked, errors = _request(start, values, _text(given, "priority"))
    return Draft(
        start=start,
        texts=texts | {"init_from": typed},
        first=first,
        changed=[name for name, value in values.items() if value != start.values[name]],
        picked=picked,
        priority=_text(given, "priority") or "0",
        key=_text(given, "request_key")[:LONGEST_KEY] or secrets.token_hex(8),
        request=asked,
        errors=errors + _start_errors(start, picked, typed),
    )


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


def _start_errors(start: Start, picked: str, typed: str) -> list[Error]:
    if picked and typed and picked != typed:
        return [("init_from", _("Choose a checkpoint of the list or name a file, not both."))]
    if start.preset == CONTINUE and not (picked or typed):
        return [("init_from", _("Choose the checkpoint to continue from."))]
    return []
