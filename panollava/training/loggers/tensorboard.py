"""Event files for TensorBoard, in tensorboard/ of the stage's directory."""

import shutil
from collections.abc import Sequence
from textwrap import indent

from panollava.events import Sample
from panollava.training.loggers.base import Logger, Place, Unavailable

DIRECTORY = "tensorboard"
FLUSH_SECONDS = 15


class TensorBoard(Logger):
    """A resumed training takes the event files of the attempt before along; TensorBoard itself drops the steps in them that come again."""

    def __init__(self, place: Place) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # imported by who asks for it: it is an option
        except ImportError:
            raise Unavailable("tensorboard is not installed: pip install 'panollava[tensorboard]'.") from None
        directory = place.directory / DIRECTORY
        if place.before and place.before != place.directory.resolve() and (place.before / DIRECTORY).is_dir():
            shutil.copytree(place.before / DIRECTORY, directory, dirs_exist_ok=True)
        self._writer = SummaryWriter(str(directory), purge_step=place.step + 1, flush_secs=FLUSH_SECONDS)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def examples(self, samples: Sequence[Sample]) -> None:
        for number, sample in enumerate(samples, start=1):
            self._writer.add_text(f"examples/{number}", _markdown(sample), sample.step)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


def _markdown(sample: Sample) -> str:
    """Texts as code, so that nothing in them is taken for markup."""
    parts = {f"Question about {sample.url}": sample.query, "Answer": sample.prediction}
    parts |= {f"Reference {number}": text for number, text in enumerate(sample.references, start=1)}
    return "\n\n".join(f"{name}:\n\n{indent(text, '    ')}" for name, text in parts.items())
