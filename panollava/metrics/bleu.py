"""BLEU-1 to BLEU-4 over a corpus: several references, clipped counts, closest reference length. Equal to pycocoevalcap's."""

from collections.abc import Iterable

import numpy as np

from panollava.metrics.ngrams import HIGHEST, Floats, Grams, Ints, Sentences

COUNTS = 2 + 2 * HIGHEST
"""Columns of the counts: words, reference words, n-grams said (4), n-grams right (4)."""

# pycocoevalcap's guards against division by zero; part of the value where an order has no n-gram at all.
SMALL, TINY = 1e-9, 1e-15


def counts(text: Sentences, orders: Iterable[Grams]) -> Floats:
    """What BLEU needs of each group; corpora add up. [G, COUNTS]"""
    words = text.lengths[: text.groups]
    said = [np.maximum(0, words - n) for n in range(HIGHEST)]
    right = [_right(text, each) for each in orders]
    return np.stack([words, _closest(text), *said, *right], axis=1).astype(np.float64)


def _closest(text: Sentences) -> Ints:
    """Length of the reference nearest in length to the prediction, the shorter of two equally near. [G]"""
    group, length = text.group[text.groups :], text.lengths[text.groups :]
    distance = np.abs(length - text.lengths[group])
    order = np.lexsort((length, distance, group))
    first = np.cumsum(text.references) - text.references
    closest: Ints = length[order[first]]
    return closest


def _right(text: Sentences, grams: Grams) -> Ints:
    """n-grams of the prediction that a reference holds too, each at most as often as the one that has it most. [G]"""
    reference = (grams.sentence >= text.groups) & (grams.twin >= 0)
    predicted = int(np.searchsorted(grams.sentence, text.groups))
    most = np.zeros(predicted, np.int64)
    np.maximum.at(most, grams.twin[reference], grams.count[reference])
    clipped = np.minimum(most, grams.count[:predicted])
    right = np.zeros(text.groups, np.int64)
    np.add.at(right, grams.sentence[:predicted], clipped)
    return right


def bleu(totals: Floats) -> Floats:
    """BLEU-1..4 of summed counts. [..., COUNTS] -> [..., 4]"""
    words, reference_words = totals[..., 0], totals[..., 1]
    said, right = totals[..., 2 : 2 + HIGHEST], totals[..., 2 + HIGHEST :]
    precision = np.cumprod((right + TINY) / (said + SMALL), axis=-1) ** (1 / np.arange(1, HIGHEST + 1))
    ratio = (words + TINY) / (reference_words + SMALL)
    brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    values: Floats = precision * brevity[..., None]
    return values
