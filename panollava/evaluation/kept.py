"""Answers as they are given: written down at once, and found again by an evaluation of the same settings that was interrupted."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from panollava import rundir
from panollava.errors import BadInput
from panollava.metrics.captions import Condition, Prediction
from panollava.metrics.records import read_lines
from panollava.metrics.report import GROWING_FILE, METRICS_FILE, PREDICTIONS_FILE, SETTINGS_FILE

log = logging.getLogger("panollava")

DATA = "data_sha256"
"""The setting that says of which table and which images; older evaluations know only the table."""

Key = tuple[Condition, str, str]
"""Condition, url, query."""


def key(answer: Prediction) -> Key:
    return answer.condition, answer.url, answer.query


class KeptAnswers:
    """`predictions.jsonl.part` of a directory, which becomes `predictions.jsonl` when it is whole."""

    def __init__(self, directory: Path, settings: dict[str, Any], resume: Path | None = None) -> None:
        """Go on from answers of the same settings in the directory, or else in `resume`."""
        self.directory, noted = directory, json.dumps(settings, indent=1)
        older = json.dumps({name: value for name, value in settings.items() if name != DATA}, indent=1)
        earlier = _found(directory, noted, older) or (_found(resume, noted, older) if resume else None)
        answers = _whole_lines(earlier) if earlier else []
        self.done = {key(each) for each in answers}
        if answers:
            log.info("%d answers of %s are kept", len(answers), earlier)
        elif resume:
            log.warning("%s holds no answers of these settings: starting from the first question", resume)
        # At no moment do answers lie beside the settings of others. `resume` is another attempt's and stays as it is.
        (directory / SETTINGS_FILE).unlink(missing_ok=True)
        rundir.write_whole(directory / GROWING_FILE, "".join(map(_line, answers)))
        rundir.write_whole(directory / SETTINGS_FILE, noted)
        self._file = (directory / GROWING_FILE).open("a", encoding="utf-8")

    def add(self, answers: Iterable[Prediction]) -> None:
        for each in answers:
            self.done.add(key(each))
            self._file.write(_line(each))
        self._file.flush()

    def finish(self) -> Path:
        """Every question is answered."""
        os.fsync(self._file.fileno())
        return (self.directory / GROWING_FILE).replace(self.directory / PREDICTIONS_FILE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[Prediction]:
    """What was answered; nothing, with a warning, where a power cut has left lines that are no answers: asking again costs only time."""
    try:
        return read_lines(path, Prediction, growing=True)
    except BadInput as error:
        log.warning("%s None of these answers are kept.", error)
        return []


def _line(answer: Prediction) -> str:
    return answer.model_dump_json(exclude_none=True) + "\n"


def _found(directory: Path, noted: str, older: str) -> Path | None:
    """The file of answers that an interrupted evaluation of these settings left; one that has its metrics was not interrupted."""
    settings, growing, whole = directory / SETTINGS_FILE, directory / GROWING_FILE, directory / PREDICTIONS_FILE
    if not settings.exists() or (found := settings.read_text()) not in (noted, older):
        return None
    if found != noted:
        log.warning("%s does not say of which images its answers are; they are kept because table, checkpoint and settings are the same", directory)
    if growing.exists():
        return growing
    return whole if whole.exists() and not (directory / METRICS_FILE).exists() else None
