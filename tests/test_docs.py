"""Pages and pictures of docs/ that are made by code are what the code makes today, and what they name is there."""

from pathlib import Path

from panollava.config import EvaluateConfig, RunConfig, StageConfig
from tools.docs import config_page

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_settings_is_made_from_todays_schema() -> None:
    assert (DOCS / "config.md").read_text(encoding="utf-8") == config_page.page(), "run `make docs`"


def test_the_page_of_settings_has_a_row_for_each() -> None:
    rows = [line.split("`")[1] for line in config_page.page().splitlines() if line.startswith("| `")]
    settings = [*RunConfig.model_fields, *StageConfig.model_fields, *EvaluateConfig.model_fields]
    assert sorted(rows) == sorted(name for name in settings if name != "stages")
