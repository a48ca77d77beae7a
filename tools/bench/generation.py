"""Greedy answers of the tiny preset, sixteen questions at once beside one by one."""

import numpy as np
import torch

from panollava.config import parse
from panollava.evaluation.answer import Answerer
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.presets import PRESETS
from panollava.stages import Stage
from panollava.views import Cutter
from tools.bench.lines import Pair, line

QUESTIONS, AT_ONCE, LONGEST = 64, 16, 32
QUERIES = ("overview", "what is behind", "where is the red circle", "in which direction is the blue square", "describe the object on the left")


@line("64 answers of at most 32 tokens, 16 at once, the same answers", against="the same model, one by one", at_least=4)
def batched_answers() -> Pair:
    """Image tokens are at hand, as they are in an evaluation. Raises ValueError if an answer differs."""
    torch.set_num_threads(1)
    answerer = _answerer()
    panoramas = np.random.default_rng(0).integers(256, size=(QUESTIONS, 128, 256, 3), dtype=np.uint8)
    tokens = answerer.encode(torch.from_numpy(np.stack([answerer.cutter(panorama) for panorama in panoramas])))
    queries = sorted((QUERIES[number % len(QUERIES)] for number in range(QUESTIONS)), key=answerer.prompt_length)

    def answers(at_once: int) -> list[str]:
        starts = range(0, QUESTIONS, at_once)
        return [text for at in starts for text in answerer.answer(tokens[at : at + at_once], queries[at : at + at_once], LONGEST)]

    pair = Pair(lambda: answers(AT_ONCE), lambda: answers(1))
    if pair.ours() != pair.peer():
        raise ValueError("A batch changes answers.")
    return pair


def _answerer() -> Answerer:
    """Pretrained parts, and a bridge that has learned nothing."""
    config = parse(PRESETS["demo"])
    built = build(config)
    cutter = Cutter(built.layout, built.architecture.image_size)
    prompter = Prompter(built.tokenizer, built.image_tokens, config.stages.resampler.max_text_length)
    return Answerer(built.model.eval(), prompter, cutter, Stage.resampler, config)
