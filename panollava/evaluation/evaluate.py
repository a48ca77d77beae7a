"""Evaluate a checkpoint on a CSV: predictions.jsonl first, metrics.json after, events on the way.

Answers to controls (conditions.py) are predictions like any other, with another `condition`. An evaluation that is interrupted and started again
with the same settings goes on from the answers it has.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from panollava import rundir
from panollava.config import EvaluateConfig
from panollava.errors import BadInput
from panollava.evaluation.answer import Answer, Answerer, load
from panollava.evaluation.conditions import Shown, conditions
from panollava.evaluation.halving import Batches
from panollava.evaluation.kept import KeptAnswers
from panollava.evaluation.questions import Question, chance_level, direction_words, grounding_of, read_questions
from panollava.events import EVENTS_FILE, EventWriter, Note, Progress, StageEvent
from panollava.metrics.captions import Prediction, read_predictions
from panollava.metrics.report import METRICS_FILE, PREDICTIONS_FILE, report
from panollava.training.data import access, load_split
from panollava.training.stop import Stopped, StopRequest
from panollava.training.weights import describe

log = logging.getLogger("panollava")

PANORAMAS_AT_ONCE = 64
"""Panoramas whose image tokens are held in memory together."""


def evaluate(config: EvaluateConfig) -> Path:
    """Answer, score, and return the directory. Raises BadInput, Stopped."""
    checkpoint = Path(config.checkpoint)
    describe(checkpoint)  # a wrong path must not leave a directory behind
    directory = Path(config.output_dir) if config.output_dir else _directory_beside(checkpoint, Path(config.csv))
    rundir.make_directory(directory, "--output-dir")
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


class _Evaluation:
    """One evaluation in the order of its steps."""

    def __init__(self, config: EvaluateConfig, directory: Path, stop: StopRequest, events: EventWriter) -> None:
        self.config, self.directory, self.stop, self.events = config, directory, stop, events
        self.panoramas = Batches(PANORAMAS_AT_ONCE, partial(self._on_halved, "panoramas"))
        self.questions = Batches(config.batch_size, partial(self._on_halved, "questions"))
        self.done = self.total = self.steps = self.answered = 0
        self.began = time.monotonic()

    def run(self) -> None:
        config, csv = self.config, Path(self.config.csv)
        settings = self._settings()
        answerer = load(Path(config.checkpoint))
        wanted = answerer.config.model_copy(update={name: getattr(config, name) for name in ("cache", "cache_dir", "cache_gb", "allow_remote")})
        reached = access(wanted, answerer.cutter, self._on_image)
        split = load_split([csv], config.image_root, 0.0, answerer.cutter, self._on_image, access=reached)
        questions = read_questions(csv, split.index, config.limit)
        with KeptAnswers(self.directory, settings, Path(config.resume) if config.resume else None) as kept:
            self.total, self.done, self.began = len(questions) * (1 + len(config.controls)), len(kept.done), time.monotonic()
            for shown in conditions(config, answerer, split.panoramas, questions, direction_words(csv)):
                self._ask(shown, kept)
            kept.finish()
        rundir.write_whole(self.directory / METRICS_FILE, json.dumps(self._metrics(answerer, settings), indent=1))
        log.info("wrote %s", self.directory / METRICS_FILE)

    def _settings(self) -> dict[str, Any]:
        """What the answers depend on. How many are given at once, where they go and where the checkpoint lies changes none of them."""
        checkpoint, csv = Path(self.config.checkpoint), Path(self.config.csv)
        asked = self.config.model_dump(mode="json", exclude={"batch_size", "checkpoint", "output_dir", "resume", "cache", "cache_dir", "cache_gb"})
        return {"config": asked, "checkpoint_sha256": rundir.sha256(checkpoint), "csv_sha256": rundir.sha256(csv)}

    def _metrics(self, answerer: Answerer, settings: dict[str, Any]) -> dict[str, Any]:
        checkpoint, csv = Path(self.config.checkpoint), Path(self.config.csv)
        grounding = grounding_of(csv)
        figures = grounding.figures if grounding else {}
        scores = report(read_predictions(self.directory / PREDICTIONS_FILE), figures, direction_words(csv))
        return scores.model_dump(mode="json") | {
            "chance": chance_level(answerer.config.csvs("train")[0], csv, figures),
            "checkpoint": {"path": str(checkpoint), "stage": str(answerer.stage), "sha256": settings["checkpoint_sha256"]},
            "csv": {"path": str(csv), "sha256": settings["csv_sha256"]},
            "config": self.config.model_dump(mode="json"),
            "questions_at_once": self.questions.size,
        }

    def _ask(self, shown: Shown, kept: KeptAnswers) -> None:
        """What is not answered yet, panorama after panorama: each is encoded once for all its questions."""
        left = [question for question in shown.questions if (shown.condition, question.url, question.query) not in kept.done]
        log.info("asking %d questions, shown: %s", len(left), shown.condition)
        images = sorted({question.image for question in left})

        def encode(group: Sequence[int]) -> Tensor:
            return shown.answerer.encode(torch.from_numpy(np.stack([shown.views(image) for image in group])))

        for group, tokens in self.panoramas(images, encode):
            for answers in self._answers(shown, left, group, tokens):
                kept.add(answers)
                self._progress(len(answers))

    def _answers(self, shown: Shown, questions: Sequence[Question], group: Sequence[int], tokens: Tensor) -> Iterator[list[Prediction]]:
        """Batches of answers about a group of panoramas with their image tokens [U, N, L], the shortest prompts first."""
        place = {image: row for row, image in enumerate(group)}
        about = sorted((each for each in questions if each.image in place), key=lambda each: shown.answerer.prompt_length(each.words))

        def answer(batch: Sequence[Question]) -> list[Answer]:
            rows = [place[question.image] for question in batch]
            return shown.answerer.answers(tokens[rows], [question.words for question in batch], self.config.max_new_tokens)

        for batch, said in self.questions(about, answer):
            yield [question.answered(each.text, shown.condition, each.truncated) for question, each in zip(batch, said, strict=True)]

    def _on_image(self, done: int, total: int) -> None:
        if self.stop:
            raise Stopped
        if done == total or done % 100 == 0:
            self.events.write(Progress(done=done, total=total, unit="images"))

    def _on_halved(self, what: str, tried: int, size: int) -> None:
        text = f"{tried} {what} at once did not fit into memory; {size} at once from here on. Nothing is left out."
        log.warning(text)
        self.events.write(Note(level="warning", text=text))

    def _progress(self, answered: int) -> None:
        self.done, self.answered, self.steps = self.done + answered, self.answered + answered, self.steps + 1
        pace = (time.monotonic() - self.began) / self.answered
        left = pace * (self.total - self.done)
        self.events.write(Progress(done=self.done, total=self.total, unit="answers", seconds_per_unit=pace, eta_seconds=left))
        if self.done == self.total or self.steps % 20 == 0:
            log.info("%d/%d answers, %s left", self.done, self.total, timedelta(seconds=round(left)))
        if self.stop:
            raise Stopped(f"{self.done} of {self.total} answers are kept; the same evaluation goes on from them with --resume {self.directory}.")
