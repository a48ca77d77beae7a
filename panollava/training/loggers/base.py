"""What a logger is, and the place in which it writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from panollava import rundir
from panollava.events import Sample


class Unavailable(Exception):
    """Why a logger cannot be used here, and what to do: the rest of the sentence `wandb_project is set, but`."""


@dataclass(frozen=True)
class Place:
    """A stage's directory, and what a resumed training goes on from: the directory of its checkpoint, and the step."""

    directory: Path
    before: Path | None = None
    step: int = 0

    @classmethod
    def of(cls, directory: Path, resume: Path | None) -> Self:
        if resume is None:
            return cls(directory)
        return cls(directory, resume.resolve().parent.parent, rundir.read_note(resume).step)


class Logger:
    """One place that metrics go to. It may raise whatever it likes: `Loggers` hears of it, nobody else does."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """The values at an optimizer step. One step may come twice, with other names: once from training and once from its validation."""
        raise NotImplementedError

    def examples(self, samples: Sequence[Sample]) -> None:
        """The answers to the fixed questions after one validation; a logger of numbers has no place for them."""

    def close(self, *, failed: bool) -> None:
        """The training is over."""
