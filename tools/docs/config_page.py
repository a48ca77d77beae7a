"""docs/config.md: every setting, from the JSON schema that the launch form and the API show too."""

from collections.abc import Iterator, Mapping
from typing import Any

from panollava.config import EvaluateConfig, RunConfig, StageConfigs
from panollava.stages import Stage

Property = Mapping[str, Any]

HEAD = """\
# Settings

Every setting there is, made from the schema in `panollava/config/` by `make docs`; do not edit this page.

A setting `crop_strategy` is `--crop-strategy` on the command line of `panollava train`, `crop_strategy` in `panollava.toml` and in the
JSON of the API. A switch `fast_decode` is `--fast-decode` or `--no-fast-decode`. Lists are joined by commas on a command line. A setting that is not
set (-) is left to what its description says. "Only for" names the choice with which a setting counts; changed without it, it is refused, as is every
name that is not here. What some settings do to each other is checked when a run is made, and the message says what to change.
"""
STAGES = """\
## Each stage

One value for each stage: `--lr 1e-4` for every stage that is trained, `--set vision.lr=1e-4` or a table `[vision]` in `panollava.toml` for one,
`{"stages": {"vision": {"lr": 1e-4}}}` in JSON.
"""
EVALUATE = """\
## An evaluation

Settings of `panollava evaluate`, spelled in the same way. An evaluation that a server is asked for is a job with these.
"""
PLAIN = ("setting", "value", "unit", "default", "only for", "what it is")
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "switch"}


def page() -> str:
    """The whole page, ending with a line feed."""
    schema = RunConfig.model_json_schema()
    fields = {name: each for name, each in schema["properties"].items() if name != "stages"}
    parts = [HEAD]
    for group in dict.fromkeys(each["x-group"] for each in fields.values()):
        rows = [_row(name, each, schema) for name, each in fields.items() if each["x-group"] == group]
        parts.append(f"## {group}\n\n{_table(PLAIN, rows)}")
    evaluation = EvaluateConfig.model_json_schema()
    rows = [_row(name, each, evaluation) for name, each in evaluation["properties"].items()]
    columns = [place for place, heading in enumerate(PLAIN) if heading not in ("unit", "only for")]
    parts.append(f"{STAGES}\n{_stages(schema)}")
    parts.append(f"{EVALUATE}\n{_table([PLAIN[c] for c in columns], [[row[c] for c in columns] for row in rows])}")
    return "\n".join(parts)


def _stages(schema: Property) -> str:
    defaults = StageConfigs().model_dump()
    rows = []
    for name, each in schema["$defs"]["StageConfig"]["properties"].items():
        shown = [_default(defaults[stage][name]) for stage in Stage]
        rows.append([f"`{name}`", _value(each, schema), each.get("x-unit", ""), *shown, each["description"]])
    return _table(["setting", "value", "unit", *(f"`{stage}`" for stage in Stage), "what it is"], rows)


def _row(name: str, each: Property, schema: Property) -> list[str]:
    default = _default(each["default"]) if "default" in each else "required"
    return [f"`{name}`", _value(each, schema), each.get("x-unit", ""), default, _choices(each), each["description"]]


def _choices(each: Property) -> str:
    return "; ".join(f"`{field}` {', '.join(values)}" for field, values in each.get("x-for", {}).items())


def _default(value: Any) -> str:
    if value is None or value in ([], ()):
        return "-"
    if isinstance(value, list | tuple):
        return f"`{','.join(_plain(each) for each in value)}`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _value(each: Property, schema: Property) -> str:
    """What may stand there: choices, or a type with its bounds."""
    if "$ref" in each:
        return _value(schema["$defs"][each["$ref"].rsplit("/", 1)[-1]], schema)
    if "anyOf" in each:
        return _value(next(kind for kind in each["anyOf"] if kind != {"type": "null"}), schema)
    if "enum" in each:
        return ", ".join(f"`{choice}`" for choice in each["enum"])
    if each["type"] == "array":
        length = f" of at most {each['maxItems']}" if "maxItems" in each else ""
        return f"list{length}: {_value(each['items'], schema)}"
    return " ".join([TYPES[each["type"]], *_bounds(each)])


def _bounds(each: Property) -> Iterator[str]:
    told = [f"{words} {each[key]:,}" for key, words in BOUNDS.items() if key in each]
    if told:
        yield ", ".join(told)
    if "pattern" in each:
        yield f"like `{each['pattern']}`"


def _table(headings: list[str] | tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
