"""`panollava plan`: the figures of a run and its refusals in one answer. Torch-free."""

from collections.abc import Callable

from pydantic import BaseModel

from panollava import forecast
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.preflight import StageFigures, figures
from panollava.refusals import Examination, Refusal
from panollava.stages import Stage


class Plan(BaseModel):
    """What a run will take. `stages` is empty where its settings make no run."""

    stages: list[StageFigures]
    refusals: list[Refusal]


def planned(read: Callable[[], RunConfig], resume: str | None = None) -> Plan:
    """`read` gives the config. Raises BadInput for one that cannot be read and names no field."""
    try:
        config = read()
    except BadInput as error:
        if not error.fields:
            raise
        return Plan(stages=[], refusals=[Refusal(field=name, message=why) for name, why in error.fields])
    seen = Examination(config, resume)
    stages = figures(config, seen.outline, seen.counts, _pace) if seen.makes_sense else []
    return Plan(stages=stages, refusals=seen.refusals)


def _pace(config: RunConfig, stage: Stage, steps: int) -> float | None:
    pace = forecast.seconds_per_step(config, stage)
    return None if pace is None else pace * steps
