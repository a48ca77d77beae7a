"""What a setting may be beside a number: a switch, or one that counts only for some choices of another."""

from typing import Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from app.launch import fields, preview
from panollava.cli import with_flags
from panollava.config.fields import Advanced, misplaced, only_for


class Settings(BaseModel):
    kind: Literal["plain", "fancy"] = "plain"
    feathers: int = Field(3, json_schema_extra=only_for(kind="fancy"))
    fast: Advanced[bool] = Field(False, description="Be fast.")


def test_a_setting_that_would_change_nothing_is_refused_with_the_reason() -> None:
    assert list(misplaced(Settings())) == list(misplaced(Settings(kind="fancy", feathers=5))) == []
    assert list(misplaced(Settings(feathers=5))) == [("feathers", 5, "it counts only where kind is fancy, and kind is plain.")]


@pytest.mark.parametrize(("argv", "value"), [(["--fast"], True), (["--no-fast"], False), ([], None)])
def test_a_switch_is_a_pair_of_flags_and_never_the_text_false(argv: list[str], value: bool | None) -> None:
    """`type=bool` of argparse takes `--fast False` for true."""
    seen = []
    app = typer.Typer()

    @app.command()
    @with_flags((Settings, {"kind", "feathers"}, True))
    def run(**flags: bool | None) -> None:
        seen.append(flags["fast"])

    assert CliRunner().invoke(app, argv).exit_code == 0
    assert seen == [value]


def test_a_switch_in_the_form_and_in_the_command_is_true_or_false() -> None:
    field = fields._field("fast", Settings.model_json_schema()["properties"]["fast"])
    assert (field.choices, field.value("true", None), field.value("false", None)) == (("true", "false"), True, False)
    assert fields.text(True) == "true"
    assert preview._option("fast", True) == ("--set", "fast=true")
