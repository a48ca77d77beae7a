"""Evaluate a checkpoint on a CSV: predictions.jsonl first, metrics.json after, events on the way.

Controls ask the same questions of something the model should fail on. Answers to them are predictions like any other, with another `condition`.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panollava import rundir
from panollava.config import EvaluateConfig
from panollava.data.images import read_panorama
from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer, load
from panollava.evaluation.questions import Question, chance_level, grounding_of, read_questions, turned
from panollava.events import EVENTS_FILE, EventWriter, Progress, StageEvent
from panollava.metrics.captions import Condition, Prediction, read_predictions
from panollava.metrics.report import report
from panollava.training.data import Split, access, load_split
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import describe

log = logging.getLogger("panollava")

PREDICTIONS, METRICS = "predictions.jsonl", "metrics.json"
PANORAMAS_AT_ONCE = 64
"""Panoramas whose image tokens are held in memory together."""
GREY = 127


def evaluate(config: EvaluateConfig) -> Path:
    """Answer, score, and return the directory. Raises BadInput, Stopped."""
    checkpoint = Path(config.checkpoint)
    describe(checkpoint)  # a wrong path must not leave a directory behind
    directory = Path(config.output_dir) if config.output_dir else _directory_beside(checkpoint, Path(config.csv))
    directory.mkdir(parents=True, exist_ok=True)
    stop = StopRequest(directory)
    stop.listen()
    events = EventWriter(directory / EVENTS_FILE)
    try:
        events.write(StageEvent(name="evaluate", status="started"))
        _Evaluation(config, directory, stop, events).run()
        events.write(StageEvent(name="evaluate", status="succeeded"))
    except Stopped as stopped:
        events.write(StageEvent(name="evaluate", status="stopped", reason="stop_requested", detail=str(stopped)))
        raise
    except BaseException as error:
        reason = "bad_input" if isinstance(error, BadInput) else type(error).__name__
        events.write(StageEvent(name="evaluate", status="failed", reason=reason, detail=str(error) or repr(error)))
        raise
    finally:
        events.close()
    return directory


def _directory_beside(checkpoint: Path, csv: Path) -> Path:
    """`runs/vlm_finetune/evaluations/test_best_20261123_101500`"""
    stage_dir = checkpoint.parent.parent if checkpoint.parent.name == rundir.CHECKPOINTS else checkpoint.parent
    return stage_dir / "evaluations" / f"{csv.stem}_{checkpoint.stem}_{rundir.now().astimezone():%Y%m%d_%H%M%S}"


@dataclass(frozen=True)
class _Shown:
    """One condition: who answers, what is shown for each panorama, and what is asked."""

    condition: Condition
    answerer: Answerer
    views: Callable[[int], np.ndarray[Any, Any]]
    questions: Sequence[Question]


class _Evaluation:
    """One evaluation in the order of its steps."""

    def __init__(self, config: EvaluateConfig, directory: Path, stop: StopRequest, events: EventWriter) -> None:
        self.config, self.directory, self.stop, self.events = config, directory, stop, events
        self.done = self.total = 0
        self.began = time.monotonic()

    def run(self) -> None:
        config, csv = self.config, Path(self.config.csv)
        answerer = load(Path(config.checkpoint))
        wanted = answerer.config.model_copy(update={name: getattr(config, name) for name in ("cache", "cache_dir", "cache_gb", "allow_remote")})
        reached = access(wanted, answerer.cutter, self._on_image)
        split = load_split([csv], config.image_root, 0.0, answerer.cutter, self._on_image, access=reached)
        questions = read_questions(csv, split.index, config.limit)
        self.total, self.began = len(questions) * (1 + len(config.controls)), time.monotonic()
        part = self.directory / (PREDICTIONS + ".part")
        with part.open("w", encoding="utf-8") as file:
            for each in self._conditions(answerer, split, questions):
                log.info("asking %d questions, shown: %s", len(each.questions), each.condition)
                for prediction in self._answers(each):
                    file.write(prediction.model_dump_json(exclude_none=True) + "\n")
        part.replace(self.directory / PREDICTIONS)
        rundir.write_whole(self.directory / METRICS, json.dumps(self._metrics(answerer, csv), indent=1))
        log.info("wrote %s", self.directory / METRICS)

    def _metrics(self, answerer: Answerer, csv: Path) -> dict[str, Any]:
        grounding, checkpoint = grounding_of(csv), Path(self.config.checkpoint)
        figures = grounding.figures if grounding else {}
        scores = report(read_predictions(self.directory / PREDICTIONS), figures)
        return scores.model_dump(mode="json") | {
            "chance": chance_level(answerer.config.csvs("train")[0], csv, figures),
            "checkpoint": {"path": str(checkpoint), "stage": str(answerer.stage), "sha256": rundir.sha256(checkpoint)},
            "csv": {"path": str(csv), "sha256": rundir.sha256(csv)},
            "config": self.config.model_dump(mode="json"),
        }

    def _conditions(self, answerer: Answerer, split: Split, questions: list[Question]) -> Iterator[_Shown]:
        panoramas, order = split.panoramas, sorted({question.image for question in questions})
        grounding = grounding_of(Path(self.config.csv))
        following = dict(zip(order, [*order[1:], *order[:1]], strict=True))

        def rolled(image: int) -> np.ndarray[Any, Any]:
            panorama = read_panorama(panoramas.paths[image], panoramas.reading).pixels
            return answerer.cutter(np.roll(panorama, panorama.shape[1] // 4, axis=1))

        for condition in ("image", *self.config.controls):
            match condition:
                case "image":
                    yield _Shown("image", answerer, panoramas.__getitem__, questions)
                case "blank":
                    yield _Shown("blank", answerer, lambda image: np.full_like(panoramas[image], GREY), questions)
                case "shuffled":
                    if len(order) < 2:
                        raise BadInput("controls: shuffled shows another panorama's image, and this table has only one.")
                    yield _Shown("shuffled", answerer, lambda image: panoramas[following[image]], questions)
                case "rolled":
                    yield _Shown("rolled", answerer, rolled, turned(questions, grounding.turn if grounding else []))
                case "untrained":
                    untrained = load(Path(self.config.checkpoint), untrained_seed=self.config.seed + 1)
                    yield _Shown("untrained", untrained, panoramas.__getitem__, questions)

    def _answers(self, shown: _Shown) -> Iterator[Prediction]:
        """Answers in the order of the questions of each group of panoramas; each panorama is encoded once for all its questions."""
        images = sorted({question.image for question in shown.questions})
        for first in range(0, len(images), PANORAMAS_AT_ONCE):
            group = images[first : first + PANORAMAS_AT_ONCE]
            tokens = shown.answerer.encode(torch.from_numpy(np.stack([shown.views(image) for image in group])))
            place = {image: row for row, image in enumerate(group)}
            asked = sorted((question for question in shown.questions if question.image in place), key=lambda question: len(question.query))
            for start in range(0, len(asked), self.config.batch_size):
                batch = asked[start : start + self.config.batch_size]
                said = shown.answerer.answer(tokens[[place[q.image] for q in batch]], [q.query for q in batch], self.config.max_new_tokens)
                for question, text in zip(batch, said, strict=True):
                    yield question.answered(text, shown.condition)
                self._progress(len(batch))

    def _on_image(self, done: int, total: int) -> None:
        if self.stop:
            raise Stopped
        if done == total or done % 100 == 0:
            self.events.write(Progress(done=done, total=total, unit="images"))

    def _progress(self, answered: int) -> None:
        if self.stop:
            raise Stopped("Nothing was kept: an evaluation starts again from its first question.")
        self.done += answered
        pace = (time.monotonic() - self.began) / self.done
        left = pace * (self.total - self.done)
        self.events.write(Progress(done=self.done, total=self.total, unit="answers", seconds_per_unit=pace, eta_seconds=left))
        if self.done == self.total or (self.done // answered) % 20 == 0:
            log.info("%d/%d answers, %s left", self.done, self.total, timedelta(seconds=round(left)))
