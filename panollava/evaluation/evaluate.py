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

from torch import Tensor

from panollava import rundir
from panollava.config import EvaluateConfig
from panollava.data.fingerprint import Fingerprint, fingerprint
from panollava.data.index import Index
from panollava.evaluation.answer import Answer, Answerer, load
from panollava.evaluation.conditions import Shown, conditions
from panollava.evaluation.halving import Batches
from panollava.evaluation.kept import DATA, KeptAnswers
from panollava.evaluation.questions import Question, chance_level, direction_words, grounding_of, read_questions
from panollava.events import EventWriter, Note, Progress
from panollava.metrics.captions import Prediction, read_predictions
from panollava.metrics.report import METRICS_FILE, PREDICTIONS_FILE, report
from panollava.training.data import access, load_split
from panollava.training.devices import memory_held
from panollava.training.stop import Stopped, StopRequest
from panollava.training.telling import told
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
    with told(directory, "evaluate", stop) as events:
        _Evaluation(config, directory, stop, events).run()
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
        self.done = self.total = self.steps = self.answered = self.left_out = 0
        self.began = time.monotonic()

    def run(self) -> None:
        config, csv = self.config, Path(self.config.csv)
        settings = self._settings()
        answerer = load(Path(config.checkpoint))
        ours = {name: getattr(config, name) for name in ("cache", "cache_dir", "cache_gb", "allow_remote")}
        ours["allow_partial_pano"] = config.allow_partial_pano or answerer.config.allow_partial_pano
        wanted = answerer.config.model_copy(update=ours)
        reached = access(wanted, answerer.cutter, self._on_image)
        split = load_split([csv], config.image_root, config.max_bad_frac, answerer.cutter, self._on_image, access=reached)
        self._say_left_out(split.index)
        questions = read_questions(csv, split.index, config.limit)
        data = fingerprint([csv], split.index)
        settings[DATA] = data.sha256
        with KeptAnswers(self.directory, settings, Path(config.resume) if config.resume else None) as kept:
            self.total, self.done, self.began = len(questions) * (1 + len(config.controls)), len(kept.done), time.monotonic()
            for shown in conditions(config, answerer, split.panoramas, questions, direction_words(csv)):
                self._ask(shown, kept)
            kept.finish()
        rundir.write_whole(self.directory / METRICS_FILE, json.dumps(self._metrics(answerer, settings, data), indent=1))
        log.info("wrote %s", self.directory / METRICS_FILE)

    def _say_left_out(self, index: Index) -> None:
        self.left_out = len(index.bad)
        for bad in index.bad:
            log.warning("left out: %s", bad)
            self.events.write(Note(level="warning", text=f"left out: {bad}"))

    def _settings(self) -> dict[str, Any]:
        """What the answers depend on. How many are given at once, where they go and where the checkpoint lies changes none of them."""
        checkpoint, csv = Path(self.config.checkpoint), Path(self.config.csv)
        asked = self.config.model_dump(mode="json", exclude={"batch_size", "checkpoint", "output_dir", "resume", "cache", "cache_dir", "cache_gb"})
        return {"config": asked, "checkpoint_sha256": rundir.sha256(checkpoint), "csv_sha256": rundir.sha256(csv)}

    def _metrics(self, answerer: Answerer, settings: dict[str, Any], data: Fingerprint) -> dict[str, Any]:
        checkpoint, csv = Path(self.config.checkpoint), Path(self.config.csv)
        grounding = grounding_of(csv)
        figures = grounding.figures if grounding else {}
        scores = report(read_predictions(self.directory / PREDICTIONS_FILE), figures, direction_words(csv))
        return scores.model_dump(mode="json") | {
            "chance": chance_level(answerer.config.csvs("train"), csv, figures),
            "checkpoint": {"path": str(checkpoint), "stage": str(answerer.stage), "sha256": settings["checkpoint_sha256"]},
            "csv": {"path": str(csv), "sha256": settings["csv_sha256"]},
            "data": data.model_dump(mode="json"),
            "rows_left_out": self.left_out,
            "config": self.config.model_dump(mode="json"),
            "questions_at_once": self.questions.size,
        }

    def _ask(self, shown: Shown, kept: KeptAnswers) -> None:
        """What is not answered yet, panorama after panorama: each is encoded once for all its questions."""
        left = [question for question in shown.questions if (shown.condition, question.url, question.query) not in kept.done]
        log.info("asking %d questions, shown: %s", len(left), shown.condition)
        images = sorted({question.image for question in left})
        for group, tokens in self.panoramas(images, shown.encode):
            for answers in self._answers(shown, left, group, tokens):
                kept.add(answers)
                self._progress(len(answers), memory_held(shown.answerer.device))

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

    def _progress(self, answered: int, memory: int | None) -> None:
        self.done, self.answered, self.steps = self.done + answered, self.answered + answered, self.steps + 1
        pace = (time.monotonic() - self.began) / self.answered
        left = pace * (self.total - self.done)
        self.events.write(Progress(done=self.done, total=self.total, unit="answers", seconds_per_unit=pace, eta_seconds=left, device_memory=memory))
        if self.done == self.total or self.steps % 20 == 0:
            log.info("%d/%d answers, %s left", self.done, self.total, timedelta(seconds=round(left)))
        if self.stop:
            raise Stopped(f"{self.done} of {self.total} answers are kept; the same evaluation goes on from them with --resume {self.directory}.")
