"""What a trainer says while it works: whole JSON lines appended to `events.jsonl`.

The trainer writes, a worker (or `panollava import`) reads; neither needs the other to be alive. Torch-free.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

EVENTS_FILE = "events.jsonl"
STOP_FILE = "stop"
"""A file of this name in the stage directory asks the trainer to save at the next step boundary and leave."""
SAVE_FILE = "save"
"""A file of this name asks for a checkpoint at the next step boundary; the trainer removes it when done."""
LEASE_FILE = "lease"
"""A file of this name is touched by the worker of a trainer as long as there is one (`panollava.training.lease`)."""
ABANDONED = "abandoned"
"""Reason of a trainer that stopped because it had no worker any more."""
LEASE_VARIABLE = "PANOLLAVA_LEASE_SECONDS"
"""In the environment of a trainer that has a worker: for how many seconds it goes on without its lease being renewed."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    t: float = Field(default_factory=time.time, description="Seconds since 1970, the trainer's clock.")


class Metric(_Event):
    """Scalars at one optimizer step. NaN and infinities travel as the strings "NaN", "Infinity", "-Infinity"."""

    type: Literal["metric"] = "metric"
    step: int
    epoch: float
    values: dict[str, float]


class Progress(_Event):
    """How far the work is. `unit` says what is counted; `eta_seconds` is None until it can be told."""

    type: Literal["progress"] = "progress"
    done: int
    total: int
    unit: Literal["steps", "images", "answers"]
    epoch: float | None = None
    seconds_per_unit: float | None = None
    eta_seconds: float | None = None
    device_memory: int | None = Field(None, description="Bytes that the trainer holds on its first device; None on a CPU.")


class CheckpointSaved(_Event):
    """A checkpoint that is whole on disk, with its `.json` beside it. `path` is relative to the stage directory."""

    type: Literal["checkpoint"] = "checkpoint"
    path: str
    kind: Literal["epoch", "step", "last", "best", "final"]
    step: int
    epoch: float
    metrics: dict[str, float] = {}
    sha256: str
    size: int


class CheckpointRemoved(_Event):
    """A regular step checkpoint has made room for a newer one. `path` is relative to the stage directory."""

    type: Literal["removed"] = "removed"
    path: str


class Sample(_Event):
    """One example prediction on a fixed validation sample."""

    type: Literal["sample"] = "sample"
    step: int
    url: str
    query: str
    references: list[str]
    prediction: str


class StageEvent(_Event):
    """A turn in the life of the work itself. The last one of a file is its outcome; an exit code alone is never trusted."""

    type: Literal["stage"] = "stage"
    name: str = Field(description="vision, resampler, finetune, evaluate, export or generate.")
    status: Literal["started", "resumed", "succeeded", "stopped", "failed"]
    step: int = 0
    best: str | None = Field(None, description="Best checkpoint, relative to the stage directory.")
    reason: str | None = Field(None, description="Short machine-readable cause of a failure, such as bad_input.")
    detail: str | None = Field(None, description="The message a person reads.")
    suggestion: dict[str, bool | int | str] | None = Field(
        None, description="Where memory ran out: what to change first, a setting by its name on the command line and its value."
    )


class Note(_Event):
    """A warning worth showing beside the charts."""

    type: Literal["note"] = "note"
    level: Literal["info", "warning"]
    text: str


Event = Annotated[Metric | Progress | CheckpointSaved | CheckpointRemoved | Sample | StageEvent | Note, Field(discriminator="type")]
_adapter: TypeAdapter[Event] = TypeAdapter(Event)


def jsonable(value: Any) -> Any:
    """The same value with NaN and infinities as the strings that `float()` understands, because JSON has no word for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def encode(event: Event) -> bytes:
    """One line, newline included."""
    return orjson.dumps(jsonable(event.model_dump(exclude_none=True)), option=orjson.OPT_APPEND_NEWLINE)


def encode_metric(step: int, epoch: float, values: dict[str, float]) -> bytes:
    """What `encode` makes of a Metric. One comes with every step, so where nothing is NaN or infinite no Metric is made."""
    if not math.isfinite(epoch + sum(values.values())):
        return encode(Metric(step=step, epoch=epoch, values=values))
    line = {"t": time.time(), "type": "metric", "step": step, "epoch": epoch, "values": values}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Event:
    """The event in one line. Raises pydantic.ValidationError for a line that is none."""
    return _adapter.validate_python(orjson.loads(line))


def _drop_torn_line(path: Path) -> None:
    """A machine that lost its power may have kept half a line; nobody has read it, so it may go."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


class EventWriter:
    """Appends events. Each is a single write() to a file opened for appending, so kill -9 leaves whole lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: Event) -> None:
        self._append(encode(event))

    def metric(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Write a Metric."""
        self._append(encode_metric(step, epoch, values))

    def _append(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written < len(line):
            os.write(self._file, line[written:])  # raises what is in the way: a full disk

    def close(self) -> None:
        os.close(self._file)


class Silence:
    """What a rank other than the first says."""

    def write(self, event: Event) -> None:
        """The first rank says it."""

    def metric(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """As above."""

    def close(self) -> None:
        """There is nothing open."""


Say = EventWriter | Silence


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, Event]]:
    """Every whole line from byte `offset` on, with the offset just behind it. A torn last line is left for later."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, decode(line)
