"""All loggers of one training, behind one that cannot fail."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_only

from panollava.config import RunConfig
from panollava.events import Note, Sample, Say
from panollava.stages import Stage
from panollava.training.loggers.base import Logger, Place, Unavailable
from panollava.training.loggers.csv_file import CsvFile
from panollava.training.loggers.tensorboard import TensorBoard
from panollava.training.loggers.weights_and_biases import WeightsAndBiases
from panollava.training.stop import Stopped

log = logging.getLogger("panollava")
Maker = Callable[[], Logger]


class Loggers:
    """Hands everything on. A logger that raises is named in a note and left out from then on."""

    def __init__(self, events: Say) -> None:
        self._events = events
        self._open: dict[str, Logger] = {}

    def open(self, field: str, make: Maker) -> None:
        try:
            self._open[field] = make()
        except Unavailable as error:
            self._say(f"{field} is set, but {error}")
        except Exception as error:  # other people's code, which must not end a training
            self._say(f"{field} is set, but it cannot be used: {error!r}")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self._open:
            self._each(lambda logger: logger.scalars(step, values))

    def examples(self, samples: Sequence[Sample]) -> None:
        self._each(lambda logger: logger.examples(samples))

    def close(self, *, failed: bool) -> None:
        self._each(lambda logger: logger.close(failed=failed))

    def _each(self, act: Callable[[Logger], None]) -> None:
        for field, logger in list(self._open.items()):
            try:
                act(logger)
            except Exception as error:  # as above: a network that is gone, a disk that is full, a service that changed its mind
                del self._open[field]
                self._say(f"{field} is switched off for the rest of this training, which goes on: {error!r}")

    def _say(self, text: str) -> None:
        log.warning(text)
        self._events.write(Note(level="warning", text=text))


@contextmanager
def opened(config: RunConfig, stage: Stage, place: Place, events: Say) -> Iterator[Loggers]:
    """The loggers that a config asks for, closed when the training is over. Of several ranks the first logs for all."""
    loggers = Loggers(events)
    if getattr(rank_zero_only, "rank", 0) == 0:
        for field, make in _makers(config, stage, place).items():
            if getattr(config, field):
                loggers.open(field, make)
    try:
        yield loggers
    except BaseException as error:
        loggers.close(failed=not isinstance(error, Stopped))
        raise
    loggers.close(failed=False)


def _makers(config: RunConfig, stage: Stage, place: Place) -> dict[str, Maker]:
    """By the field that switches it on."""
    return {
        "wandb_project": lambda: WeightsAndBiases(config, stage, place),
        "tensorboard": lambda: TensorBoard(place),
        "metrics_csv": lambda: CsvFile(place),
    }
