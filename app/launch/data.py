"""What the launch form offers for its path fields: the tables and the model directories that lie below the roots.

Offers only; nothing is filled in, and any other path can be named.
"""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app import search
from app.datasets import tables
from app.launch.sources import LOCAL
from app.settings import Settings
from panollava import architecture

ENTRIES, OPENED = 20_000, 200
"""Names looked at, and files of a kind opened, before the search is given up: the page should not wait for it."""
LONGEST = 100_000
"""Bytes of a model's config.json; longer ones are none that anybody wrote for one."""
PAIR = {"train.csv", "valid.csv"}


def suggestions(settings: Settings) -> dict[str, list[str]]:
    """Paths by input: directories that hold both splits for `data_dir`, tables for the two CSV fields, model directories for each model."""
    files = list(search.files(settings, ENTRIES, lambda name: name == "config.json" or tables.is_csv(name)))
    found = tables.among([path for path in files if tables.is_csv(path.name)][:OPENED])
    directories = [str(each.directory) for each in found if {table.name for table in each.tables} >= PAIR]
    paths = [str(table) for each in found for table in each.tables]
    models = _models([path for path in files if path.name == "config.json"][:OPENED])
    return {"data_dir": directories, "csv_train": paths, "csv_val": paths} | models


def _models(configs: Iterable[Path]) -> dict[str, list[str]]:
    parts = {path.parent: _part(path) for path in configs}
    return {local: [str(directory) for directory, part in parts.items() if part == model] for model, local in LOCAL.items()}


class _Config(BaseModel):
    """The names in a model's config.json."""

    model_type: str = ""
    architectures: list[str] | None = None


def _part(path: Path) -> str | None:
    """The field that a model with this config.json can stand in; None for any other file of that name."""
    try:
        with path.open("rb") as file:
            config = _Config.model_validate_json(file.read(LONGEST))
    except (OSError, ValidationError):
        return None  # no model to suggest; who names it is told what is wrong with it
    return architecture.part(config.model_type, config.architectures or ())
