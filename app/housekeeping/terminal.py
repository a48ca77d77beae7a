"""What a trainer that nobody watched has left: its directories, the stretches of its events.jsonl, its log files. Reads files, knows no rows.

A stage that was stopped and resumed in a terminal has one events.jsonl; what each process wrote is one stretch of it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from app.errors import Invalid
from app.i18n import _
from panollava import rundir
from panollava.config import RunConfig, validated
from panollava.errors import BadInput
from panollava.events import EVENTS_FILE, StageEvent
from panollava.stages import Stage

CONFIG_FILE = "config.json"
OUTPUT_FILE = "output.log"
"""Where a worker has its trainer print; a directory that comes from another house has one."""
STARTING = timedelta(minutes=10)
"""The longest that a trainer imports and looks at its arguments between opening its log and saying that it began."""
BEGINNING = 16 * 1024
"""Bytes of a log among which it says what it is about."""
LOG_NAME = re.compile(r"stage\d_(?P<stage>[a-z]+)_(?P<at>\d{8}_\d{6})\.log")


@dataclass(frozen=True)
class Stretch:
    """What one process wrote: bytes `start` to `end` of events.jsonl, whole lines."""

    start: int
    end: int
    began: StageEvent
    word: StageEvent | None
    """How it ended, by its own word."""
    last_t: float
    """When it last wrote, by its own clock."""

    @property
    def began_at(self) -> datetime:
        return datetime.fromtimestamp(self.began.t, UTC)

    @property
    def last_at(self) -> datetime:
        return datetime.fromtimestamp(self.last_t, UTC)


@dataclass(frozen=True)
class StageDirectory:
    """A stage that was trained."""

    path: Path
    stage: Stage
    config: RunConfig
    stretches: Sequence[Stretch]

    @property
    def run(self) -> Path:
        """What the stages of one run share: `runs/vlm` of `runs/vlm_vision`; the directory itself where it is named otherwise."""
        return self.path.parent / self.config.name if self.path.name == f"{self.config.name}_{self.stage}" else self.path

    @property
    def stood_in(self) -> Path:
        """The working directory of the trainer, from which its relative paths start: the one in which its `--output-dir` lies."""
        output = Path(self.config.output_dir)
        parts, parent = () if output.is_absolute() else output.parts, self.path.parent
        return Path(*parent.parts[: len(parent.parts) - len(parts)]) if parts and parent.parts[-len(parts) :] == parts else parent

    def log_of(self, number: int) -> Path | None:
        """The log file of a stretch; None where there is none, or where more than one might be it."""
        if (self.path / OUTPUT_FILE).is_file():
            return self.path / OUTPUT_FILE if len(self.stretches) == 1 else None
        stretch = self.stretches[number]
        earliest = stretch.began_at - STARTING
        if number:
            earliest = max(earliest, self.stretches[number - 1].last_at.replace(microsecond=0))
        at_that_time = [path for path, opened in self._logs() if earliest <= opened <= stretch.began_at]
        ours = [path for path in at_that_time if self._is_named_in(path)] or at_that_time
        return ours[0] if len(ours) == 1 else None

    def _is_named_in(self, log: Path) -> bool:
        """Whether the log says at its beginning that it is about this directory."""
        said = rundir.WHICH_STAGE % (self.stage, rundir.stage_dir(self.config.output_dir, self.config.name, self.stage))
        with log.open("rb") as file:
            return f"{said}\n".encode() in file.read(BEGINNING)

    def _logs(self) -> Iterator[tuple[Path, datetime]]:
        """Log files of this stage and when they were opened: their names say so, in local time."""
        if not self.config.log_dir:
            return
        for path in sorted((self.stood_in / self.config.log_dir).glob("*.log")):
            if (named := LOG_NAME.fullmatch(path.name)) and named["stage"] == self.stage:
                yield path, datetime.strptime(named["at"], "%Y%m%d_%H%M%S").astimezone(UTC)


def stages_in(directory: Path) -> list[StageDirectory]:
    """The stage that a directory is of, or the stages that it holds, by run and in training order. Raises Invalid saying why there is none."""
    if not directory.is_dir():
        raise Invalid(_("{path}: there is no such directory.").format(path=directory))
    if (directory / EVENTS_FILE).is_file():
        return [read(directory)]
    found = [read(path.parent) for path in sorted(directory.glob(f"*/{EVENTS_FILE}"))]
    if not found:
        raise Invalid(_("{path}: no training: neither it nor a directory in it has an {file}.").format(path=directory, file=EVENTS_FILE))
    return sorted(found, key=lambda each: (each.run, each.stage.number))


def read(directory: Path) -> StageDirectory:
    """Raises Invalid for what is no training of a stage."""
    if not (directory / CONFIG_FILE).is_file():
        raise Invalid(_("{path}: no training: it has an {file} and no {config}.").format(path=directory, file=EVENTS_FILE, config=CONFIG_FILE))
    stretches = scan(directory / EVENTS_FILE)
    if not stretches:
        raise Invalid(_("{path}: nothing in its {file} says that a training began.").format(path=directory, file=EVENTS_FILE))
    if (name := stretches[0].began.name) not in list(Stage):
        raise Invalid(_("{path}: holds no training: its {file} is of {name!r}.").format(path=directory, file=EVENTS_FILE, name=name))
    return StageDirectory(directory, Stage(name), _config(directory / CONFIG_FILE), stretches)


def _config(path: Path) -> RunConfig:
    try:
        return validated(RunConfig, orjson.loads(path.read_bytes()))
    except (BadInput, orjson.JSONDecodeError) as error:
        raise Invalid(_("{path}: no config of this version: {error}").format(path=path, error=error)) from None


def scan(path: Path) -> list[Stretch]:
    """The stretches of an events file, oldest first. A torn line at its end is left for later."""
    found: list[_Growing] = []
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            event = _stage_event(line)
            if event and event.status in ("started", "resumed"):
                found.append(_Growing(offset if found else 0, event))
            offset += len(line)
            if found:
                found[-1].take(offset, line, event)
    return [each.done() for each in found]


class _Growing:
    def __init__(self, start: int, began: StageEvent) -> None:
        self._start, self._began = start, began
        self._end, self._last = start, b""
        self._word: StageEvent | None = None

    def take(self, end: int, line: bytes, event: StageEvent | None) -> None:
        self._end, self._last = end, line
        if event and event is not self._began:
            self._word = event

    def done(self) -> Stretch:
        last_t = self._began.t
        with suppress(ValueError, KeyError, TypeError):  # a line that is no event is noted when it is brought in
            last_t = max(last_t, float(orjson.loads(self._last)["t"]))
        return Stretch(self._start, self._end, self._began, self._word, last_t)


def _stage_event(line: bytes) -> StageEvent | None:
    if b'"type":"stage"' not in line:  # in a text these quotes are escaped
        return None
    with suppress(ValueError):
        return StageEvent.model_validate_json(line)
    return None
