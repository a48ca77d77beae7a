"""Settings as plain nested dictionaries: read from a file, laid over each other, flattened."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from panollava.errors import BadInput
from panollava.stages import Stage

CONFIG_FILE = "panollava.toml"


def from_file(path: Path) -> dict[str, Any]:
    """The values a TOML or JSON file sets, in the schema's own shape. Raises BadInput for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from None
    if path.suffix == ".json":
        import json

        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}.") from None
        return dict(values)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: {error}.") from None
    sections = {name: tables.pop(name) for name in list(Stage) if isinstance(tables.get(name), dict)}
    plain = tables.pop("model", {})
    return merge(merge(tables, plain), {"stages": sections} if sections else {})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins; tables are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"stages": {"vision": {"lr": 1}}}` -> `("stages.vision.lr", 1)`. Lists are values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `vision.lr` or `overlap` in a nested dictionary; a stage's name leads to its section."""
    keys = dotted.split(".")
    if len(keys) > 1 and keys[0] in list(Stage):
        keys = ["stages", *keys]
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value
