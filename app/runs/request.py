"""What a run asks for, checked and made independent of where the server happens to stand. Reads files, writes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import Invalid
from app.i18n import _
from app.paths import allowed, check_images
from app.settings import Settings
from panollava import architecture, rundir
from panollava.config import CONFIG_FILE, RunConfig, from_file, merge, parse
from panollava.data.table import listed, scan
from panollava.errors import BadInput
from panollava.presets import PRESETS
from panollava.stages import RECIPES

MODELS = ("vision_model", "language_model")


def read(values: Mapping[str, Any], preset: str | None = None, defaults: Path = Path(CONFIG_FILE)) -> RunConfig:
    """The values a request sets, over its preset's, over those of the server's own `panollava.toml`. Raises Invalid or BadInput."""
    if preset is not None and preset not in PRESETS:
        raise Invalid(_("preset: there is no preset {name!r}; there are {names}.").format(name=preset, names=", ".join(PRESETS)))
    own = from_file(defaults) if defaults.exists() else {}
    return parse(merge(merge(own, PRESETS[preset] if preset else {}), values))


def resolve(config: RunConfig, settings: Settings) -> RunConfig:
    """The config with every path absolute and allowed, its tables and its starting checkpoint looked at.

    Raises Forbidden, Invalid or BadInput, each naming the field or file.
    """
    config.check()
    paths = {field: _path(settings, field, getattr(config, field)) for field in ("data_dir", "image_root", "init_from")}
    models = {field: _model(settings, field, getattr(config, field)) for field in MODELS}
    splits = {"csv_train": config.csv("train"), "csv_val": config.csv("valid")}
    tables = {field: str(allowed(settings, field, str(path))) for field, path in splits.items()}
    config = config.model_copy(update=paths | models | tables)
    for field in tables:
        _check_table(settings, Path(getattr(config, field)), config)
    if config.init_from:
        _check_start(Path(config.init_from), config)
    return config


def _path(settings: Settings, field: str, value: str | None) -> str | None:
    return value and str(allowed(settings, field, value))


def _model(settings: Settings, field: str, value: str) -> str:
    """A hub id stays what it is; a directory becomes absolute."""
    if not value.startswith(("/", ".", "~")) and not Path(value).is_dir():
        return value
    path = allowed(settings, field, value)
    if not (path / "config.json").is_file():
        raise Invalid(_("{field}: {path} is no model directory: it has no config.json.").format(field=field, path=path))
    return str(path)


def _check_table(settings: Settings, path: Path, config: RunConfig) -> None:
    """Rows may be bad as far as `max_bad_frac` allows, which the trainer judges together with the images; the columns may not."""
    rows, problems = scan(path, need_annotation=any(RECIPES[stage].needs_text for stage in config.stage))
    if problems and (not rows or config.max_bad_frac == 0):
        raise BadInput(listed([problem.at(path) for problem in problems]))
    check_images(settings, rows, path, config.image_root)


def _check_start(checkpoint: Path, config: RunConfig) -> None:
    """Models on the hub that are not here cannot be compared; the trainer compares them when it has them."""
    note = rundir.read_note(checkpoint)
    if wanted := architecture.of(config):
        rundir.check_same_architecture(checkpoint, note.stage, note.architecture, wanted)
