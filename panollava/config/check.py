"""Values in, a checked model out, or every field that is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from panollava.config.run import RunConfig
from panollava.config.stage import StageConfig
from panollava.errors import BadInput

Model = TypeVar("Model", bound=BaseModel)


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A checked config, or BadInput naming every field that is wrong."""
    config = validated(RunConfig, values)
    config.check()
    return config


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """A model of these values, or BadInput naming every field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fields = [_field(each) for each in error.errors()]
        raise BadInput("\n".join(f"{where}: {what}" for where, what in fields), fields) from None


def _field(error: Any) -> tuple[str, str]:
    """("vision.lr", "there is no such setting.")"""
    where = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        is_stages = where in StageConfig.model_fields
        return where, f"there is no such setting.{f' Each stage has its own, such as finetune.{where}.' if is_stages else ''}"
    return where, f"{error['msg'].removeprefix('Value error, ')} (got {error['input']!r})."
