"""What a launch would do, before it does it: the config it comes to, all that speaks against it, and the same request in other words.

The other words are the terminal's command, the body of POST /runs, and curl. Nothing is written; files are read only where settings are given.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.errors import AppError, Invalid
from app.runs import request
from app.runs.schemas import RunRequest
from app.settings import Settings
from panollava import architecture
from panollava.config import CONFIG_FILE, RunConfig, flat, merge, put, validated
from panollava.errors import BadInput
from panollava.stages import Stage

Error = tuple[str, str]
"""A dotted field and what is wrong with it."""


@dataclass(frozen=True)
class Plan:
    """A request thought through."""

    asked: RunConfig | None
    """The config as it was asked for; None when a value of it cannot be."""
    resolved: RunConfig | None
    """The config that would be stored, paths absolute; None when something speaks against it."""
    errors: list[Error]
    changed: list[str]
    """Dotted names of what the request changes in its preset."""
    command: str
    body: dict[str, Any]
    curl: str

    @property
    def json(self) -> str:
        return orjson.dumps(self.body, option=orjson.OPT_INDENT_2).decode()


def plan(asked: RunRequest, server: str, settings: Settings | None = None) -> Plan:
    """What the request comes to. `server` is the address that curl is told.

    Without settings no file is looked at. Raises BadInput for a `panollava.toml` of the server that cannot be read.
    """
    try:
        base = request.base(asked.preset)
    except Invalid as error:
        return _plan(asked, server, {}, None, None, [("preset", str(error).removeprefix("preset: "))])
    config, errors = _checked(base, asked.config)
    usable = config or _checked(base, _without(asked.config, errors))[0]
    resolved = None
    if usable and settings:
        examined = request.examine(usable, settings)
        resolved, errors = examined.config, errors + examined.errors
    return _plan(asked, server, base, config, None if errors else resolved, errors)


def image_tokens(config: RunConfig, settings: Settings) -> int | None:
    """Of every panorama; None while the vision encoder's config is not to be had, or not to be looked at: that is told at its field."""
    try:
        return architecture.image_tokens(config.model_copy(update={"vision_model": request.model(settings, "vision_model", config.vision_model)}))
    except (AppError, BadInput):
        return None


def _plan(
    asked: RunRequest, server: str, base: Mapping[str, Any], config: RunConfig | None, resolved: RunConfig | None, errors: list[Error]
) -> Plan:  # fmt: skip
    body = asked.model_dump(mode="json", exclude_defaults=True)
    before, _errors = _checked(base, {})
    given = dict(flat(asked.config))
    return Plan(
        asked=config,
        resolved=resolved,
        errors=list(dict.fromkeys(errors)),
        changed=_changed(before, config) if before and config else list(given),
        command=command(asked.preset, {"stage": before.stage if before else "all"} | given),
        body=body,
        curl=curl(server, body),
    )


def _checked(base: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[RunConfig | None, list[Error]]:
    try:
        return validated(RunConfig, merge(base, values)), []
    except BadInput as error:
        return None, list(error.fields)


def _without(values: Mapping[str, Any], errors: list[Error]) -> dict[str, Any]:
    """The values that nothing is wrong with, so that the rest of them can be looked at as well."""
    wrong = tuple(field for field, _why in errors)
    return nest({name: value for name, value in flat(values) if not any(f"{field}.".startswith(f"{name}.") for field in wrong)})


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"stages.vision.lr": 1}` -> `{"stages": {"vision": {"lr": 1}}}`"""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        put(nested, name, value)
    return nested


def _changed(before: RunConfig, after: RunConfig) -> list[str]:
    old = dict(flat(before.model_dump(mode="json")))
    return [name for name, value in flat(after.model_dump(mode="json")) if value != old[name]]


# The same in other words


def command(preset: str | None, values: Mapping[str, Any], defaults: Path = Path(CONFIG_FILE)) -> str:
    """What to type in a terminal on this machine, one option a line. `values`: the stages, and what goes over the preset's, by dotted name."""
    options = [_option("stage", values["stage"])]
    if defaults.exists():
        options.append(("--config", str(defaults.resolve())))
    if preset:
        options.append(("--preset", preset))
    options += [_option(name, value) for name, value in values.items() if name != "stage"]
    return " \\\n  ".join(["panollava train", *(f"{flag} {shlex.quote(value)}" for flag, value in options)])


def _option(name: str, value: Any) -> tuple[str, str]:
    """A flag where there is one that can say it. `--set` can also say that a value is not set, and is told of the stages one by one."""
    if value is not None and not isinstance(value, bool) and name in RunConfig.model_fields:
        return f"--{name.replace('_', '-')}", _listed(value)
    return "--set", f"{name.removeprefix('stages.')}={'' if value is None else _listed(value)}"


def _listed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "all" if list(value) == list(Stage) else ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def curl(server: str, body: Mapping[str, Any]) -> str:
    """The request for a shell that has a token in $TOKEN."""
    return " \\\n  ".join(_curl(server, orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()))


def _curl(server: str, body: str) -> Iterator[str]:
    yield f"curl --fail-with-body {shlex.quote(f'{server}/api/v1/runs')}"
    yield '-H "Authorization: Bearer $TOKEN"'
    yield "-H 'Content-Type: application/json'"
    yield f"-d {shlex.quote(body)}"
