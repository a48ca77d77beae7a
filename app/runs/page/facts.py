"""A few settings that tell runs apart at a glance."""

from typing import Any

from app.i18n import ngettext
from panollava import architecture
from panollava.config import RunConfig
from panollava.errors import BadInput


def facts(config: dict[str, Any]) -> list[str]:
    """Few enough to stand beside a run's name."""
    asked = RunConfig.model_construct(**config)
    views, tokens = asked.views, _image_tokens(asked)
    return [
        ngettext("{n} view", "{n} views", views).format(n=views),
        *([ngettext("{n} image token", "{n} image tokens", tokens).format(n=f"{tokens:,}")] if tokens else []),
        config["resampler"],
        *([config["precision"]] if config["precision"] != "auto" else []),
    ]


def _image_tokens(config: RunConfig) -> int | None:
    """Of every panorama; None once the vision encoder's config is gone from where the run had it."""
    try:
        return architecture.image_tokens(config)
    except BadInput:
        return None
