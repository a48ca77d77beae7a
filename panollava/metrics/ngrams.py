"""The n-grams of all sentences of an evaluation as flat arrays, so that BLEU and CIDEr are sums over arrays, not loops over dictionaries.

Knows nothing of scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

HIGHEST = 4
"""Both scores count the n-grams of one to four words."""


# G groups (questions), R references of all groups, S = G + R sentences, T tokens in all.
@dataclass(frozen=True)
class Sentences:
    """Sentence i < G is the prediction of group i; the references follow, group after group."""

    tokens: Ints  # [T] word numbers, sentence after sentence
    lengths: Ints  # [S] words
    group: Ints  # [S]
    groups: int

    @property
    def references(self) -> Ints:
        """How many each group has. [G]"""
        return np.bincount(self.group[self.groups :], minlength=self.groups)


def sentences(predictions: Sequence[list[str]], references: Sequence[list[list[str]]]) -> Sentences:
    """Number the words of `predictions` [G] and of their `references` [G][one or more]."""
    everything = [*predictions, *(reference for group in references for reference in group)]
    numbers: dict[str, int] = {}
    tokens = [numbers.setdefault(word, len(numbers)) for sentence in everything for word in sentence]
    own = np.arange(len(predictions))
    return Sentences(
        tokens=np.array(tokens, np.int64),
        lengths=np.array([len(sentence) for sentence in everything], np.int64),
        group=np.concatenate([own, np.repeat(own, [len(group) for group in references])]),
        groups=len(predictions),
    )


@dataclass(frozen=True)
class Grams:
    """Every distinct n-gram of every sentence, M in all, sorted by sentence."""

    sentence: Ints  # [M]
    gram: Ints  # [M] number of the n-gram, below `kinds`
    count: Ints  # [M] how often the sentence holds it
    twin: Ints  # [M] where the same n-gram stands in the prediction of the sentence's group, or -1
    kinds: int


def grams(text: Sentences) -> Iterator[Grams]:
    """The 1-grams, the 2-grams, ... of a text."""
    sentence = np.repeat(np.arange(len(text.lengths)), text.lengths)
    left = np.repeat(np.cumsum(text.lengths), text.lengths) - np.arange(len(text.tokens))  # words from here to the sentence's end
    words = int(text.tokens.max(initial=0)) + 1
    start, gram, kinds = np.arange(len(text.tokens)), text.tokens, words
    for n in range(1, HIGHEST + 1):
        if n > 1:
            whole = left[start] >= n
            start, longer = start[whole], gram[whole] * words
            distinct, gram = np.unique(longer + text.tokens[start + n - 1], return_inverse=True)
            kinds = max(1, len(distinct))
        yield _count(text, sentence[start], gram, kinds)


def _count(text: Sentences, sentence: Ints, gram: Ints, kinds: int) -> Grams:
    keys, count = np.unique(sentence * kinds + gram, return_counts=True)
    sentence, gram = np.divmod(keys, kinds)
    # A prediction's sentence number is its group's, so the keys of predictions come first and are keys of (group, n-gram).
    wanted, offered = text.group[sentence] * kinds + gram, keys[: np.searchsorted(keys, text.groups * kinds)]
    place = np.searchsorted(offered, wanted)
    hit = np.append(offered, -1)[place] == wanted
    return Grams(sentence, gram, count, np.where(hit, place, -1), kinds)
