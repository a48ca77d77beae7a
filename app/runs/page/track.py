"""The stages of a run as a track: what each starts from, how far it is, when it will be done. Pure: rows and times come in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from app.i18n import _
from app.jobs import progress
from app.models import ACTIVE, Attempt, JobStatus
from app.runs.page.forecast import Forecast
from app.runs.schemas import StageOut
from panollava.stages import Stage


@dataclass(frozen=True)
class Start:
    """What a stage starts from: the weights it was handed."""

    text: str
    url: str | None = None


@dataclass(frozen=True)
class Leg:
    """One stage of the track."""

    told: StageOut
    is_current: bool
    about: str
    start: Start | None
    """None while the stage before it has not handed anything over."""
    took: float | None
    """Seconds of work in all attempts so far."""
    resumed_step: int
    """Where the newest attempt went on; 0 for the start."""
    best_loss: float | None
    foreseen: Forecast | None
    """Of a stage that has not begun, where the same work was done before."""
    now: datetime

    @property
    def stage(self) -> Stage:
        return self.told.stage

    @property
    def is_active(self) -> bool:
        return self.told.status in ACTIVE

    @property
    def has_steps(self) -> bool:
        """Whether the progress counts steps; before the first it counts images that are read."""
        return self.told.progress.get("unit") == "steps"

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return 1.0 if self.told.status == JobStatus.succeeded else progress.share(self.told.progress)

    @property
    def pace(self) -> float | None:
        """Seconds per step, while it is at work."""
        seconds: float | None = self.told.progress.get("seconds_per_unit") if self.is_active and self.has_steps else None
        return seconds

    @property
    def ends_at(self) -> datetime | None:
        """As the trainer foresees it; None while it cannot."""
        return progress.ends_at(self.told.progress) if self.is_active else None

    @property
    def left(self) -> float | None:
        """Seconds until then."""
        return progress.left(self.told.progress, self.now) if self.is_active else None


def after(legs: Sequence[Leg]) -> list[Stage]:
    """The stages that follow the current one and have not begun."""
    return [leg.stage for leg in legs if leg.told.job_id is None]


def chain_left(legs: Sequence[Leg]) -> float | None:
    """Seconds until the last stage ends, if the one at work and those before it on the track can all be foreseen."""
    ahead = [leg for leg in legs if leg.told.status != JobStatus.succeeded]
    seconds = [leg.left if leg.is_current else leg.foreseen and leg.foreseen.seconds for leg in ahead]
    return sum(each for each in seconds if each) if ahead and all(each is not None for each in seconds) else None


OVERLAP_LOSSES = {"vicreg": "VICReg", "densecl": "DenseCL"}


def about(stage: Stage, config: Mapping[str, Any]) -> str:
    """A few words on what the stage works with."""
    loss, weight = OVERLAP_LOSSES[config.get("overlap_loss", "vicreg")], config.get("overlap_loss_weight", 0)
    facts = {
        Stage.vision: (short(config["vision_model"]), loss),
        Stage.resampler: (config["resampler"], *([f"{weight:g} {loss}"] if weight else [])),
        Stage.finetune: (short(config["language_model"]),),
    }
    return " · ".join(facts[stage])


def short(model: str) -> str:
    """`google/siglip-base-patch16-224` -> `siglip-base-patch16-224`"""
    return PurePath(model).name or model


def weights(config: Mapping[str, Any]) -> Start:
    """What the first stage starts from, without a checkpoint."""
    return Start(_("local weights") if PurePath(config["vision_model"]).is_absolute() else _("hub weights"))


def worked(attempts: Sequence[Attempt], now: datetime) -> float | None:
    """Seconds of work in all of them; one that goes on counts until now. None without any."""
    spans = [((each.ended_at or now) - each.started_at).total_seconds() for each in attempts]
    return sum(spans) if spans else None
