"""Weights & Biases: used when a project is named and it can be reached or is told to stay offline. No key is read, asked for or stored by us.

A resumed training goes on in the run it began, whose id is kept in wandb.json of the stage's directory.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Self

from pydantic import BaseModel

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.events import Metric, Sample
from panollava.stages import Stage
from panollava.training.loggers.base import Logger, Place, Unavailable

RUN_FILE = "wandb.json"
EXAMPLES = "examples"
FINISH_SECONDS = 30
"""How long the end of a training waits for what is not sent yet; `wandb sync` sends the rest."""


class Begun(BaseModel):
    """The run that a stage logs to, and the last step that it holds of each name: W&B cannot take back what a resumed training repeats."""

    project: str
    name: str
    id: str
    logged: dict[str, int] = {}

    @classmethod
    def new(cls, project: str, name: str) -> Self:
        return cls(project=project, name=name, id=secrets.token_hex(4))

    @classmethod
    def before(cls, directory: Path) -> Self | None:
        """The run of an earlier attempt, with all it had logged; None where it logged to none."""
        path = directory / RUN_FILE
        if not path.exists():
            return None
        begun = cls.model_validate_json(path.read_bytes())
        for _, event in events.read(directory / events.EVENTS_FILE):
            for name in _names(event):
                begun.logged[name] = max(begun.logged.get(name, 0), event.step)  # type: ignore[union-attr]
        return begun


def _names(event: events.Event) -> Sequence[str]:
    if isinstance(event, Metric):
        return list(event.values)
    return [EXAMPLES] if isinstance(event, Sample) else []


class WeightsAndBiases(Logger):
    """One W&B run for a stage. Its axis is our step: W&B's own counter takes no second row of a step, which a validation is."""

    def __init__(self, config: RunConfig, stage: Stage, place: Place) -> None:
        self._wandb = _usable()
        project, name = config.wandb_project or "", f"{config.name}_{stage}"
        before = Begun.before(place.before) if place.before else None
        goes_on = before is not None and (before.project, before.name) == (project, name)
        begun = before if before and goes_on else Begun.new(project, name)
        self._logged = begun.logged
        settings = self._wandb.Settings(finish_timeout=FINISH_SECONDS, finish_timeout_raises=True)
        self._run = self._wandb.init(
            project=project, name=name, id=begun.id, resume="allow" if goes_on else None, dir=str(place.directory),
            config=config.model_dump(mode="json"), reinit="finish_previous", settings=settings,
        )  # fmt: skip
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        rundir.write_whole(place.directory / RUN_FILE, begun.model_dump_json(indent=1))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if new := {name: value for name, value in values.items() if step > self._logged.get(name, 0)}:
            self._run.log({"step": step, **new})

    def examples(self, samples: Sequence[Sample]) -> None:
        step = samples[0].step
        if step <= self._logged.get(EXAMPLES, 0):
            return
        rows = [[each.url, each.query, "\n".join(each.references), each.prediction] for each in samples]
        table = self._wandb.Table(columns=["url", "query", "references", "prediction"], data=rows)
        self._run.log({"step": step, EXAMPLES: table})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _usable() -> ModuleType:
    """The library, if it can be used without asking anybody. Raises Unavailable."""
    try:
        import wandb
    except ImportError:
        raise Unavailable("wandb is not installed: pip install 'panollava[wandb]'.") from None
    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
        raise Unavailable("there is no login: run `wandb login`, or set WANDB_MODE=offline.")
    module: ModuleType = wandb
    return module
