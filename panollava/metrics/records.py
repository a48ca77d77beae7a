"""Reading files of records, one JSON object a line, with errors that name file, line and field."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from panollava.errors import BadInput

Record = TypeVar("Record", bound=BaseModel)


def read_lines(path: Path, record: type[Record], *, growing: bool = False) -> list[Record]:
    """Every line as a record; blank lines are skipped, and the last one of a file that is still growing if it has no end yet. Raises BadInput."""
    text = _read(path)
    whole = text[: text.rfind(b"\n") + 1] if growing else text
    return [_parse(line, record, f"{path}: line {number}") for number, line in enumerate(whole.splitlines(), start=1) if line.strip()]


def read_whole(path: Path, record: type[Record]) -> Record:
    """A file that is one record. Raises BadInput."""
    return _parse(_read(path), record, str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from None


def _parse(text: bytes, record: type[Record], where: str) -> Record:
    try:
        return record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{where}: {field + ': ' if field else ''}{first['msg'].removeprefix('Value error, ')}.") from None
