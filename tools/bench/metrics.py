"""Caption metrics on a split as large as QuIC-360's test split, beside pycocoevalcap's pure Python parts."""

import random

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from panollava.metrics.bleu import bleu, counts
from panollava.metrics.cider import cider
from panollava.metrics.ngrams import Floats, grams, sentences
from panollava.metrics.rouge import rouge_l
from tools.bench.lines import Pair, line

PREDICTIONS, REFERENCES = 5349, 3
VOCABULARY = [f"word{rank}" for rank in range(5000)]
FREQUENCIES = [1 / (rank + 1) for rank in range(5000)]
"""Words are about as often as in English."""
KEPT = 0.6
"""Share of the words of its first reference that a prediction repeats in place."""

Words = list[str]


@line("BLEU-1..4, ROUGE-L and CIDEr-D of 5,349 predictions with 3 references, same values", against="pycocoevalcap", at_least=7)
def caption_metrics() -> Pair:
    """Both get words that are cut already, pycocoevalcap joined by blanks as it wants them. Raises ValueError if a value differs by 1e-9."""
    said, wanted = _captions()
    joined = {group: [" ".join(words)] for group, words in enumerate(said)}
    references = {group: [" ".join(words) for words in each] for group, each in enumerate(wanted)}
    pair = Pair(lambda: _ours(said, wanted), lambda: _theirs(joined, references))
    if not np.allclose(pair.ours(), pair.peer(), rtol=0, atol=1e-9):
        raise ValueError("The values are not pycocoevalcap's.")
    return pair


def _ours(said: list[Words], wanted: list[list[Words]]) -> Floats:
    text = sentences(said, wanted)
    orders = list(grams(text))
    likeness = np.mean([rouge_l(words, references) for words, references in zip(said, wanted, strict=True)])
    return np.array([*bleu(counts(text, orders).sum(axis=0)), likeness, cider(text, orders).mean()])


def _theirs(said: dict[int, list[str]], wanted: dict[int, list[str]]) -> Floats:
    values, _ = Bleu(4).compute_score(wanted, said, verbose=0)
    return np.array([*values, Rouge().compute_score(wanted, said)[0], Cider().compute_score(wanted, said)[0]])


def _captions() -> tuple[list[Words], list[list[Words]]]:
    """Of 10 to 30 words, about the 20 of QuIC-360's references."""
    draw = random.Random(0)
    wanted = [[draw.choices(VOCABULARY, FREQUENCIES, k=draw.randint(10, 30)) for _ in range(REFERENCES)] for _ in range(PREDICTIONS)]
    said = [[word if draw.random() < KEPT else draw.choices(VOCABULARY, FREQUENCIES)[0] for word in references[0]] for references in wanted]
    return said, wanted
