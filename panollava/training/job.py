"""One training as it was asked for, and how it speaks: to a person through the log, to a dashboard through its events."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from panollava.config import RunConfig, StageConfig
from panollava.events import Note, Progress, Say
from panollava.stages import RECIPES, Recipe, Stage

log = logging.getLogger("panollava")
LINE_SECONDS = 5.0
"""Between two lines about work that goes on."""


@dataclass(frozen=True)
class StageJob:
    """What to train, where its files go, and what it starts from. At most one of `init_from` and `resume` is set."""

    config: RunConfig
    stage: Stage
    directory: Path
    init_from: Path | None = None
    resume: Path | None = None
    warnings: tuple[str, ...] = ()
    """What was noticed while the start was chosen."""

    @property
    def settings(self) -> StageConfig:
        return self.config.stages[self.stage]

    @property
    def recipe(self) -> Recipe:
        return RECIPES[self.stage]


@dataclass
class Voice:
    """What a training says, in its log and in its events."""

    events: Say
    clock: Callable[[], float] = time.monotonic
    _line_at: float | None = None
    """When a person was last told of images."""

    def say(self, text: str) -> None:
        log.info("%s", text)
        self.note(text)

    def warn(self, text: str) -> None:
        log.warning("%s", text)
        self.events.write(Note(level="warning", text=text))

    def note(self, text: str) -> None:
        """For those who read the events; the log has it in another form."""
        self.events.write(Note(level="info", text=text))

    def images(self, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            self.events.write(Progress(done=done, total=total, unit="images"))
        now = self.clock()
        if self._line_at is None:
            self._line_at = now
        if now - self._line_at >= LINE_SECONDS:
            self._line_at = now
            log.info("%s of %s panoramas", f"{done:,}", f"{total:,}")
