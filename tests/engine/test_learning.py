"""The whole path learns: from pixels through the frozen language model to right answers about these very panoramas."""

from pathlib import Path

import torch

from panollava import views
from panollava.config import RunConfig
from panollava.evaluation.questions import read_questions
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.stages import Stage
from panollava.training.data import Collate, load_split
from panollava.training.module import StageModule


def test_one_batch_is_learned_and_answered_greedily_by_looking(config: RunConfig, demo_data: Path, prompter: Prompter) -> None:
    """Not word for word: the frozen language model has learned to choose freely among three wordings. The content must be right."""
    module = StageModule(build(config), config, Stage.resampler, steps=300)
    csv = demo_data / "valid.csv"
    split = load_split(csv, None, 0.0, views.Cutter(views.ring(8, 90.0), 32), lambda done, total: None)
    questions = [question for question in read_questions(csv, split.index, limit=2) if question.kind != "overview"]
    first_row = {(row.url, row.query): number for number, row in reversed(list(enumerate(split.index.rows)))}
    batch = Collate(split, prompter)([(question.image, first_row[question.url, question.query]) for question in questions])

    def right(pixels: torch.Tensor) -> float:
        with torch.inference_mode():
            tokens = module.model.image_tokens(pixels)[batch.image_index]
        ids, mask, _ = prompter.collate([prompter.question(question.query) for question in questions])
        said = prompter.decode(module.model.generate(tokens, ids, mask, max_new_tokens=16, stop=prompter.stop, pad=prompter.pad))
        return sum(text in question.references for text, question in zip(said, questions, strict=True)) / len(questions)

    assert right(batch.pixels) < 0.5
    optimizer = module.configure_optimizers()
    for step in range(300):
        if step % 25 == 0 and right(batch.pixels) > 0.9:
            break
        optimizer.zero_grad()
        module.measure(batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), module.settings.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"]  # no warm-up: one batch needs none
        optimizer.step()
    assert right(batch.pixels) > 0.9
    assert right(batch.pixels.roll(1, 0)) < 0.6, "with each other's panorama the answers are wrong"
