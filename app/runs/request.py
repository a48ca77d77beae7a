"""What a run asks for, checked and made independent of where the server happens to stand. Reads files, writes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import artifacts
from app.artifacts import ReadNote
from app.errors import AppError, Invalid
from app.i18n import _
from app.paths import allowed, allowed_artifact, check_located, check_remote
from app.settings import Settings
from panollava.architecture import is_directory
from panollava.config import CONFIG_FILE, RunConfig, from_file, merge, parse
from panollava.errors import BadInput
from panollava.presets import PRESETS
from panollava.refusals import MODELS, Examination, Refusal

PATHS = {"data_dir": allowed, "image_root": allowed, "init_from": allowed_artifact}
OURS = ("output_dir", "log_dir", "cache_dir", "cache_gb")
"""Set by the manager for every run, so no choice of anybody's."""


def base(preset: str | None = None, defaults: Path = Path(CONFIG_FILE)) -> dict[str, Any]:
    """What a request's values go over: its preset's, over those of the server's own `panollava.toml`. Raises Invalid or BadInput."""
    if preset is not None and preset not in PRESETS:
        raise Invalid(_("preset: there is no preset {name!r}; there are {names}.").format(name=preset, names=", ".join(PRESETS)))
    own = from_file(defaults) if defaults.exists() else {}
    return merge(own, PRESETS[preset] if preset else {})


def read(values: Mapping[str, Any], preset: str | None = None, defaults: Path = Path(CONFIG_FILE)) -> RunConfig:
    """The config of a request. Raises Invalid or BadInput."""
    return parse(merge(base(preset, defaults), values))


@dataclass(frozen=True)
class Examined:
    """A request's config with every path absolute, and all that speaks against it."""

    config: RunConfig
    closed: Sequence[tuple[str, AppError]]
    """Fields that name what users may not have."""
    refusals: Sequence[Refusal]

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Fields and what is wrong with them."""
        closed = [(field, str(error).removeprefix(f"{field}: ")) for field, error in self.closed]
        return closed + [(each.field, each.message) for each in self.refusals]


def resolve(config: RunConfig, settings: Settings, read_note: ReadNote = artifacts.read_note) -> RunConfig:
    """The config with every path absolute and allowed, its models, tables and starting checkpoint looked at.

    Raises Forbidden, Invalid or BadInput, each naming the field or file.
    """
    config.check()
    examined = examine(config, settings, read_note)
    for _field, error in examined.closed:
        raise error
    if wrong := examined.errors:
        raise BadInput("\n".join(f"{field}: {why}" for field, why in wrong), wrong)
    return examined.config


def examine(config: RunConfig, settings: Settings, read_note: ReadNote = artifacts.read_note) -> Examined:
    """What users may not name is found here and not looked at; of the rest `panollava.refusals` judges."""
    closed: list[tuple[str, AppError]] = []

    @contextmanager
    def at(field: str) -> Iterator[None]:
        try:
            yield
        except AppError as error:
            closed.append((field, error))

    opened: dict[str, Any] = {}
    for field in PATHS:
        with at(field):
            opened[field] = _path(settings, field, getattr(config, field))
    for field in MODELS:
        with at(field):
            opened[field] = model(settings, field, getattr(config, field))
    for field, csvs in {"csv_train": config.csvs("train"), "csv_val": config.csvs("valid")}.items():
        with at(field):
            opened[field] = tuple(str(allowed(settings, field, str(csv))) for csv in csvs)
    with at("allow_remote"):
        check_remote(settings, config.allow_remote)
    seen = Examination(config.model_copy(update=opened), closed={field for field, _error in closed}, may_fetch=True, read_note=read_note)
    derived = {field: "data_dir" for field in ("csv_train", "csv_val") if config.data_dir and not getattr(config, field)}
    for table in seen.tables:
        with at(derived.get(table.field, table.field)):
            check_located(settings, table.csv, table.rows, table.paths)
    return Examined(seen.config, closed, [Refusal(field=derived.get(each.field, each.field), message=each.message) for each in seen.refusals])


def _path(settings: Settings, field: str, value: str | None) -> str | None:
    return value and str(PATHS[field](settings, field, value))


def model(settings: Settings, field: str, value: str) -> str:
    """A hub id stays what it is; a directory becomes absolute."""
    return str(allowed(settings, field, value)) if is_directory(value) else value
