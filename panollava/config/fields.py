"""What a field's type says besides its type: the group in which a form shows it, what a number counts, and for which choices it is there.

`Views[float]` is a float of the group Views.
"""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Value = TypeVar("Value")
STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _group(name: str) -> Any:
    return Field(json_schema_extra={"x-group": name})


def unit(name: str) -> dict[str, Any]:
    """What a number counts, for `json_schema_extra`."""
    return {"x-unit": name}


Chain = Annotated[Value, _group("Chain")]
Common = Annotated[Value, _group("Common")]
Data = Annotated[Value, _group("Data")]
Views = Annotated[Value, _group("Views")]
Bridge = Annotated[Value, _group("Model")]
Optimizer = Annotated[Value, _group("Optimizer")]
Overlap = Annotated[Value, _group("Overlap loss")]
Advanced = Annotated[Value, _group("Advanced")]
Terminal = Annotated[Value, _group("Terminal")]


def only_for(**choices: str | tuple[str, ...]) -> dict[str, Any]:
    """For `json_schema_extra`: the field counts only where another field has one of these values: `only_for(resampler=("perceiver", "qformer"))`.

    Set where it does not count, it is refused: a setting that changes nothing must not look as if it did.
    """
    return {"x-for": {field: [values] if isinstance(values, str) else list(values) for field, values in choices.items()}}


def misplaced(config: BaseModel) -> Iterator[tuple[str, Any, str]]:
    """Fields that are set though another field's value leaves them without effect: name, value, and why that cannot be."""
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        conditions: dict[str, list[str]] = extra.get("x-for", {})  # type: ignore[assignment]
        value = getattr(config, name)
        for other, wanted in conditions.items():
            if value != field.default and getattr(config, other) not in wanted:
                yield name, value, f"it counts only where {other} is {' or '.join(wanted)}, and {other} is {getattr(config, other)}."
