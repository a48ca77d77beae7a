"""Example answers: the same few validation questions, answered after every validation, so that one can watch a model learn.

They are asked as an evaluation asks them. Greedy answers draw no random numbers, so a training is the same with them and without.
Legend: U questions, V views, S view side, N image tokens, L language width.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from panollava.config import RunConfig
from panollava.data.table import normalised
from panollava.evaluation.answer import Answerer
from panollava.evaluation.questions import Question, grouped
from panollava.events import Sample, Say
from panollava.training.data import Collate, Split
from panollava.training.loggers import Loggers
from panollava.training.module import StageModule
from panollava.training.out_of_memory import told
from panollava.training.watching import Watcher

LONGEST = 32
"""Tokens of an example answer: enough to see what it is about, few enough to take no time."""


def callbacks(module: StageModule, config: RunConfig, valid: Collate, events: Say, loggers: Loggers) -> list[pl.Callback]:
    """What a stage that answers questions is watched by; nothing for stage vision, or when no examples are wanted."""
    if valid.prompter is None or not config.example_predictions:
        return []
    answerer = Answerer(module.model, valid.prompter, valid.split.panoramas.cutter, module.stage, config)
    return [Examples(answerer, valid.split, config.example_predictions, module.settings.batch_size, events, loggers)]


def chosen(questions: Sequence[Question], count: int) -> list[Question]:
    """At most `count` of them, spread over the panoramas in their order, as different in words as they can be. The same for every run on a split."""
    by_image = [list(group) for _, group in groupby(sorted(questions, key=lambda each: each.image), key=lambda each: each.image)]
    asked: Counter[str] = Counter()
    picked: list[Question] = []
    while len(picked) < min(count, len(questions)):
        left = [group for group in by_image if group]
        wanted = min(count - len(picked), len(left))
        for place in range(wanted):
            group = left[place * len(left) // wanted]
            question = min(group, key=lambda each: asked[normalised(each.query)])
            group.remove(question)
            asked[normalised(question.query)] += 1
            picked.append(question)
    return picked


class Examples(Watcher):
    """Answers the fixed questions when a validation is over; the model is in evaluation mode then, and without gradients."""

    def __init__(self, answerer: Answerer, split: Split, count: int, batch_size: int, events: Say, loggers: Loggers) -> None:
        self.answerer, self.split, self.batch_size = answerer, split, batch_size
        self.questions = chosen(grouped(split.index), count)
        self.events, self.loggers = events, loggers

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        if not trainer.is_global_zero:
            return
        shown = told(pl_module.config, pl_module.stage, "examples", step=pl_module.step)
        with shown, trainer.precision_plugin.forward_context():
            answers = [answer for start in range(0, len(self.questions), self.batch_size) for answer in self._answer(start)]
        samples = [
            Sample(step=pl_module.step, url=question.url, query=question.query, references=list(question.references), prediction=answer)
            for question, answer in zip(self.questions, answers, strict=True)
        ]
        for sample in samples:
            self.events.write(sample)
        self.loggers.examples(samples)

    def _answer(self, start: int) -> list[str]:
        asked = self.questions[start : start + self.batch_size]
        tokens = self.answerer.encode(self._views(asked))  # [U, N, L]
        return self.answerer.answer(tokens, [question.query for question in asked], LONGEST)

    def _views(self, asked: Sequence[Question]) -> Tensor:
        """uint8 [U, V, S, S, 3]"""
        return torch.from_numpy(np.stack([self.split.panoramas[question.image] for question in asked]))
