"""Data that the launch form offers: what lies below the roots. Offers only; nothing is filled in, and any other path can be named."""

from itertools import islice

from app import search
from app.datasets import tables
from app.settings import Settings

ENTRIES, OPENED = 20_000, 200
"""Names looked at and files opened before the search is given up: the page should not wait for it."""
PAIR = {"train.csv", "valid.csv"}


def suggestions(settings: Settings) -> dict[str, list[str]]:
    """Paths by field: directories that hold both splits for `data_dir`, tables for the two CSV fields."""
    found = tables.among(islice(search.files(settings, ENTRIES, tables.is_csv), OPENED))
    directories = [str(each.directory) for each in found if {table.name for table in each.tables} >= PAIR]
    paths = [str(table) for each in found for table in each.tables]
    return {"data_dir": directories, "csv_train": paths, "csv_val": paths}
