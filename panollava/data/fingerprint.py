"""What a run has learned from, in one line: a sha256 over the bytes of a split's tables and images."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from panollava import rundir
from panollava.data.index import Index

DATA_FILE = "data.json"
"""In a stage's directory: the fingerprint of each split."""


class Fingerprint(BaseModel):
    """One split as it was when it was read. Where the files lie does not count, only what is in them and in which order."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(description="Of the tables' and then the images' sha256, in the order in which rows name them.")
    tables: dict[str, str] = Field(description="The sha256 of each CSV.")
    rows: int
    images: int

    def __str__(self) -> str:
        return f"{', '.join(self.tables)}: {self.rows:,} rows, {self.images:,} panoramas, sha256 {self.sha256}"


class Fingerprints(BaseModel):
    """The content of DATA_FILE."""

    model_config = ConfigDict(frozen=True)

    splits: Mapping[str, Fingerprint]


def fingerprint(csvs: Sequence[Path], index: Index) -> Fingerprint:
    """Of the rows that are used. Images count by their bytes, so a table that names the same pictures elsewhere has the same ones."""
    tables = {str(csv): rundir.sha256(csv) for csv in csvs}
    used = [index.pictures[image] for image in index.used_images]
    whole = hashlib.sha256("\n".join([*tables.values(), *(picture.sha256 for picture in used if picture)]).encode())
    return Fingerprint(sha256=whole.hexdigest(), tables=tables, rows=len(index.rows), images=len(used))


def write_fingerprints(directory: Path, splits: Mapping[str, Fingerprint]) -> None:
    rundir.write_whole(directory / DATA_FILE, Fingerprints(splits=splits).model_dump_json(indent=1))


def changed(before: Path, now: Mapping[str, Fingerprint]) -> list[str]:
    """Splits that are not what they were when another directory's training read them; none where nothing says what they were."""
    if not (file := before / DATA_FILE).is_file():
        return []
    known = Fingerprints.model_validate_json(file.read_bytes()).splits
    return [name for name, each in now.items() if name in known and known[name].sha256 != each.sha256]
