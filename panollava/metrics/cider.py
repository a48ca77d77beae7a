"""CIDEr-D: how like its references a prediction is, in n-grams weighted by how rare they are among the references of the split.

Equal to pycocoevalcap's: n = 1..4, clipped, gaussian in the length, times 10. One group alone scores 0, whatever it says:
its n-grams are in every group there is. Below a hundred groups the weights mean little.
"""

from collections.abc import Iterable

import numpy as np

from panollava.metrics.ngrams import HIGHEST, Floats, Grams, Sentences

SIGMA = 6.0
SCALE = 10.0
FEW = 100
"""Below so many groups a report says of CIDEr that it means little."""


def cider(text: Sentences, orders: Iterable[Grams]) -> Floats:
    """The score of each group. [G]"""
    likeness = sum((_likeness(text, each) for each in orders), np.zeros(len(text.lengths))) / HIGHEST  # [S]
    # The reference implementation measures length in 2-grams, so an empty sentence and one word are equally long.
    length = np.maximum(0, text.lengths - 1)
    apart = length[text.group] - length
    likeness *= np.exp(-(apart**2) / (2 * SIGMA**2))
    mean: Floats = np.bincount(text.group, likeness, text.groups) / text.references
    return mean * SCALE


def _likeness(text: Sentences, grams: Grams) -> Floats:
    """Clipped cosine of each reference with its prediction; 0 for the predictions themselves. [S]"""
    weight = grams.count * _rarity(text, grams)[grams.gram]
    norm = np.sqrt(np.bincount(grams.sentence, weight**2, len(text.lengths)))
    shared = (grams.sentence >= text.groups) & (grams.twin >= 0)
    theirs, ours = weight[shared], weight[grams.twin[shared]]
    overlap = np.bincount(grams.sentence[shared], np.minimum(ours, theirs) * theirs, len(text.lengths))
    norms = norm * norm[text.group]
    cosine: Floats = np.divide(overlap, norms, out=np.zeros(len(norms)), where=norms > 0)
    return cosine


def _rarity(text: Sentences, grams: Grams) -> Floats:
    """log(groups / groups whose references hold the n-gram), the weight of each n-gram. [kinds]"""
    reference = grams.sentence >= text.groups
    keys = np.sort(text.group[grams.sentence[reference]] * grams.kinds + grams.gram[reference])
    once = keys[np.diff(keys, prepend=-1) > 0]  # np.unique without counts hashes, 25 times slower here
    groups = np.bincount(once % grams.kinds, minlength=grams.kinds)
    rarity: Floats = np.log(text.groups) - np.log(np.maximum(1, groups))
    return rarity
