"""What a run asks for, checked and made independent of where the server happens to stand. Reads files, writes nothing."""

import os.path
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import artifacts
from app.errors import AppError, Invalid
from app.i18n import _
from app.paths import allowed, allowed_artifact, check_images, check_remote
from app.settings import Settings
from panollava import architecture, rundir
from panollava.config import CONFIG_FILE, RunConfig, from_file, merge, parse
from panollava.data.table import listed, scan
from panollava.errors import BadInput
from panollava.presets import PRESETS
from panollava.refusals import cell_refusals, text_refusals
from panollava.stages import RECIPES

PATHS = {"data_dir": allowed, "image_root": allowed, "init_from": allowed_artifact}
MODELS = ("vision_model", "language_model")
OURS = ("output_dir", "log_dir", "cache_dir", "cache_gb")
"""Set by the manager for every run, so no choice of anybody's."""


@dataclass(frozen=True)
class Refusal:
    """What speaks against a request, and the field in which it can be mended."""

    field: str
    error: AppError | BadInput
    why: str = ""
    """The same without the field's name; the error's own words if empty."""

    def __str__(self) -> str:
        return self.why or str(self.error).removeprefix(f"{self.field}: ")


def base(preset: str | None = None, defaults: Path = Path(CONFIG_FILE)) -> dict[str, Any]:
    """What a request's values go over: its preset's, over those of the server's own `panollava.toml`. Raises Invalid or BadInput."""
    if preset is not None and preset not in PRESETS:
        raise Invalid(_("preset: there is no preset {name!r}; there are {names}.").format(name=preset, names=", ".join(PRESETS)))
    own = from_file(defaults) if defaults.exists() else {}
    return merge(own, PRESETS[preset] if preset else {})


def read(values: Mapping[str, Any], preset: str | None = None, defaults: Path = Path(CONFIG_FILE)) -> RunConfig:
    """The config of a request. Raises Invalid or BadInput."""
    return parse(merge(base(preset, defaults), values))


def resolve(config: RunConfig, settings: Settings) -> RunConfig:
    """The config with every path absolute and allowed, its tables and its starting checkpoint looked at.

    Raises Forbidden, Invalid or BadInput, each naming the field or file.
    """
    resolved, refusals = examine(config, settings)
    if refusals:
        raise refusals[0].error
    return resolved


def examine(config: RunConfig, settings: Settings) -> tuple[RunConfig, list[Refusal]]:
    """The config as `resolve` makes it, and all that speaks against it. A path that was refused is None in it and is not looked at."""
    seen = _Seen()
    with seen.to("stage"):
        config.check()
    seen.makes_sense = not seen.refusals
    for field in PATHS:
        with seen.to(field):
            seen.paths[field] = _path(settings, field, getattr(config, field))
    for field in MODELS:
        with seen.to(field):
            seen.paths[field] = model(settings, field, getattr(config, field))
    with seen.to("allow_remote"):
        check_remote(settings, config.allow_remote)
    tables: dict[str, tuple[str, ...]] = {}
    for field, paths in {"csv_train": config.csvs("train"), "csv_val": config.csvs("valid")}.items():
        with seen.to(field):
            tables[field] = tuple(str(allowed(settings, field, str(path))) for path in paths)
    unset: dict[str, Any] = dict.fromkeys((*PATHS, *MODELS)) | {"csv_train": (), "csv_val": ()}
    resolved = config.model_copy(update=unset | seen.paths | tables)
    for field, names in tables.items():
        for name in names:
            with seen.to(_where(config, field)):
                _check_table(settings, Path(name), resolved)
    if seen.makes_sense and seen.paths.keys() >= set(MODELS):
        with seen.to("resampler"):
            _check_models(resolved)
    if resolved.init_from and seen.paths.keys() >= set(MODELS):
        with seen.to("init_from"):
            _check_start(resolved.init_from, resolved)
    return resolved, seen.refusals


class _Seen:
    """What an examination has found so far."""

    def __init__(self) -> None:
        self.paths: dict[str, str | None] = {}
        self.refusals: list[Refusal] = []
        self.makes_sense = False
        """Whether the settings go together, whatever the files are."""

    @contextmanager
    def to(self, field: str) -> Iterator[None]:
        """Look at something; what is wrong with it is this field's, unless the error names its own."""
        try:
            yield
        except (AppError, BadInput) as error:
            named = error.fields if isinstance(error, BadInput) else ()
            self.refusals += [Refusal(name, error, why) for name, why in named] or [Refusal(field, error)]


def _where(config: RunConfig, field: str) -> str:
    """The field that a table's path comes from."""
    return "data_dir" if config.data_dir and not getattr(config, field) else field


def _path(settings: Settings, field: str, value: str | None) -> str | None:
    return value and str(PATHS[field](settings, field, value))


def is_directory(model: str) -> bool:
    """Whether a model's name means a directory of this machine: it reads like a path, or there is one of that name."""
    return model.startswith(("/", ".", "~")) or os.path.isdir(model)


def model(settings: Settings, field: str, value: str) -> str:
    """A hub id stays what it is; a directory becomes absolute."""
    if not is_directory(value):
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


def _check_models(config: RunConfig) -> None:
    """As far as their files are here: sizes that divide, a text budget that leaves room. Raises BadInput."""
    outline = architecture.outline(config)
    wrong = [*text_refusals(config), *(cell_refusals(config, outline) if outline else ())]
    if wrong:
        raise BadInput("\n".join(f"{each.field}: {each.message}" for each in wrong), [(each.field, each.message) for each in wrong])


def _check_start(checkpoint: str, config: RunConfig) -> None:
    """Models on the hub that are not here cannot be compared; the trainer compares them when it has them."""
    note, first = artifacts.read_note(checkpoint), config.stage[0]
    if wanted := architecture.of(config):
        rundir.check_same_architecture(Path(checkpoint), note.stage, note.architecture, wanted)
    if note.stage.number > first.number:
        text = _("init_from: {path} is of stage {theirs}, which cannot start the earlier stage {stage}.")
        raise Invalid(text.format(path=checkpoint, theirs=note.stage, stage=first))
