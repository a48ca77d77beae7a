"""What the run of a launch will take: the figures of `panollava plan`, with files only where they may be read and the pace of earlier runs."""

from collections.abc import Sequence

from sqlmodel import Session

from app.errors import AppError
from app.i18n import _
from app.launch.preview import Plan
from app.paths import allowed
from app.runs import request
from app.runs.page.forecast import foreseen
from app.settings import Settings
from panollava import architecture, plan_text
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.preflight import Counts, Pace, StageFigures, figures
from panollava.refusals import MODELS
from panollava.stages import RECIPES, Stage


def takes(session: Session, plan: Plan, settings: Settings) -> list[StageFigures]:
    """Of each stage. Empty while the settings make no run; what cannot be read is not known, and told at its field."""
    if plan.asked is None:
        return []
    config = plan.resolved or plan.asked
    try:
        config.check()
        models = {field: request.model(settings, field, getattr(config, field)) for field in MODELS}
        config = config.model_copy(update=models)
        outline = architecture.outline(config)
        return figures(config, outline, _counts(config, settings), _pace_of(session))
    except (AppError, BadInput):
        return []


def _counts(config: RunConfig, settings: Settings) -> Counts | None:
    try:
        paths = [allowed(settings, "csv_train", str(csv)) for csv in config.csvs("train")]
        return Counts.of(paths, need_annotation=any(RECIPES[stage].needs_text for stage in config.stage))
    except (AppError, BadInput):
        return None


def _pace_of(session: Session) -> Pace:
    def pace(config: RunConfig, stage: Stage, _steps: int) -> float | None:
        found = foreseen(session, config.model_dump(mode="json"), stage)
        return found.seconds if found else None

    return pace


def told(stages: Sequence[StageFigures]) -> dict[str, str]:
    """The figures in words, by `stage.figure`; without those of a stage that is not trained."""
    return {f"{each.stage}.{name}": text for each in stages for name, text in _words(each).items()}


def labels() -> dict[str, str]:
    """The figures that the page shows, in its order."""
    return {
        "learns": _("Learns"),
        "tokens": _("Image tokens"),
        "steps": _("Steps"),
        "batch": _("Batch"),
        "memory": _("Memory"),
        "time": _("Time"),
    }


def _words(each: StageFigures) -> dict[str, str]:
    unknown = _("not known yet")
    is_known = each.learning is not None and each.parameters is not None
    return {
        "learns": _("{n} of {all}").format(n=_short(each.learning or 0), all=_short(each.parameters or 0)) if is_known else unknown,
        "tokens": unknown if each.image_tokens is None else f"{each.image_tokens:,}",
        "steps": unknown if each.steps is None else f"{each.steps:,}",
        "batch": plan_text.batch(each),
        "memory": unknown if each.memory is None else plan_text.gigabytes(each.memory.total),
        "time": unknown if each.seconds is None else _("about {duration}").format(duration=plan_text.duration(each.seconds)),
    }


def _short(count: int) -> str:
    """1,234 -> 1,234; 93123456 -> 93.1 M"""
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"
