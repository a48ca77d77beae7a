"""Pages and pictures of docs/ that are made by code are what the code makes today, and what they name is there."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panollava.config import EvaluateConfig, RunConfig, StageConfig
from panollava.layouts import STRATEGIES, count
from panollava.resamplers import RESAMPLERS, Sizes, image_tokens, parameters
from tools.docs import config_page, views_picture

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODEL = (DOCS / "model.md").read_text(encoding="utf-8")


def test_the_page_of_settings_is_made_from_todays_schema() -> None:
    assert (DOCS / "config.md").read_text(encoding="utf-8") == config_page.page(), "run `make docs`"


def test_the_page_of_settings_has_a_row_for_each() -> None:
    rows = [line.split("`")[1] for line in config_page.page().splitlines() if line.startswith("| `")]
    settings = [*RunConfig.model_fields, *StageConfig.model_fields, *EvaluateConfig.model_fields]
    assert sorted(rows) == sorted(name for name in settings if name != "stages")


def test_the_picture_of_the_views_is_what_the_layouts_say_today() -> None:
    """But for the odd pixel where another version of Pillow draws a letter or chooses its colours in another way."""
    kept, made = (np.asarray(each.convert("RGB"), int) for each in (Image.open(DOCS / "img" / "views.png"), views_picture.picture()))
    assert kept.shape == made.shape, "run `make docs`"
    assert (np.abs(kept - made).max(-1) > 24).mean() < 0.003, "run `make docs`"


def test_the_picture_shows_every_crop_strategy() -> None:
    assert views_picture.WORDS.keys() == STRATEGIES.keys()


def row(name: str) -> list[str]:
    """The cells of the row of the page on the model whose first cell is this name."""
    (line,) = re.findall(rf"^\| `{name}` \|.*$", MODEL, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_page_on_the_model_counts_views_and_tokens_as_the_engine_does(name: str) -> None:
    config = RunConfig.model_validate({"crop_strategy": name})
    _, views, tokens, *_ = row(name)
    assert views.split(",")[0] == str(count(config))
    assert tokens.split(", or")[0] == f"{image_tokens(config, Sizes(count(config), 14, 768)):,}"


@pytest.mark.parametrize("name", RESAMPLERS)
def test_the_page_on_the_model_counts_parameters_as_the_engine_does(name: str) -> None:
    config, sizes = RunConfig.model_validate({"resampler": name}), Sizes(8, 14, 768)
    _, tokens, learned, *_ = row(name)
    assert (tokens, learned) == (f"{image_tokens(config, sizes):,}", f"{parameters(config, sizes):,}")


def test_every_test_that_a_page_names_is_there() -> None:
    named = {name for page in DOCS.glob("*.md") for name in re.findall(r"`(test_[a-z0-9_]+)`", page.read_text(encoding="utf-8"))}
    there = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 20 and named <= there


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_on_reliability_names_drills_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "reliability.md").read_text(encoding="utf-8")))
    there = {name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)}
    assert len(named) > 15 and named <= there, named - there
