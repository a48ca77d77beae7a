"""What answers are like, whatever they are about: too long, repeated, all alike, cut off, blank. Neither good nor bad by themselves.

Each is a ratio of sums over questions. Which answers and which pairs of words are repeated is counted once over all answers and not again in
every resample, whose doubled questions would repeat themselves.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from panollava.metrics.ngrams import Floats, Grams, Sentences
from panollava.metrics.ratios import Ratios, ratios

TRAITS = ("length_ratio", "distinct_2", "duplicate_rate", "blank_rate", "truncated_rate")


def traits(said: Sequence[list[str]], text: Sentences, pairs: Grams, closest: Floats, truncated: Sequence[bool | None]) -> Ratios:
    """`pairs` are the 2-grams of the text, `closest` the length of the nearest reference [G]; unknown truncation is no trait."""
    words, ones = text.lengths[: text.groups].astype(np.float64), np.ones(text.groups)
    times = Counter(map(tuple, said))
    parts = {
        "length_ratio": (words, closest),
        "distinct_2": _distinct(text, pairs),
        "duplicate_rate": (np.array([1 - 1 / times[tuple(each)] for each in said]), ones),
        "blank_rate": ((words == 0).astype(np.float64), ones),
    }
    known = [float(each) for each in truncated if each is not None]
    if len(known) == text.groups:
        parts["truncated_rate"] = (np.array(known), ones)
    return ratios(text.groups, parts)


def _distinct(text: Sentences, pairs: Grams) -> tuple[Floats, Floats]:
    """Each pair of words shares one distinct pair with all its repetitions. -> (shares [G], pairs [G])"""
    predicted = int(np.searchsorted(pairs.sentence, text.groups))
    sentence, gram, count = pairs.sentence[:predicted], pairs.gram[:predicted], pairs.count[:predicted]
    often = np.bincount(gram, count, pairs.kinds)
    shares: Floats = np.bincount(sentence, count / often[gram], text.groups).astype(np.float64)
    return shares, np.bincount(sentence, count, text.groups).astype(np.float64)
