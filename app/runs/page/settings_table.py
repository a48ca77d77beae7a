"""A run's config as a flat table: dotted names, values as text, and which of them are not the schema's defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.i18n import _
from app.runs.request import OURS
from panollava.config import RunConfig, StageConfig, flat
from panollava.stages import Stage


@dataclass(frozen=True)
class Setting:
    """One value of a config."""

    name: str
    value: str
    default: str | None
    """None for a setting that this version no longer knows."""
    help: str

    @property
    def changed(self) -> bool:
        return self.name not in OURS and self.value != self.default

    def matches(self, text: str) -> bool:
        """Whether a search for the text finds it."""
        return text.casefold() in f"{self.name} {self.value} {self.help}".casefold()


def table(config: Mapping[str, Any]) -> list[Setting]:
    """Every setting of the run's own stages; what was changed comes first."""
    others = tuple(f"stages.{stage}." for stage in Stage if stage not in config["stage"])
    defaults = dict(flat(RunConfig().model_dump(mode="json")))
    settings = [
        Setting(name, text(value), text(defaults[name]) if name in defaults else None, _help(name))
        for name, value in flat(config) if not name.startswith(others)
    ]  # fmt: skip
    return sorted(settings, key=lambda each: not each.changed)


def text(value: Any) -> str:
    """As a person would type it."""
    if value is None:
        return _("not set")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _help(name: str) -> str:
    model = StageConfig if name.startswith("stages.") else RunConfig
    field = model.model_fields.get(name.rpartition(".")[2])
    return (field.description if field else None) or ""
