"""METEOR of exact words and Porter stems (`meteor_exact_stem`): no synonyms, no paraphrases, so no data and no Java.

Alignment, parameters (alpha 0.9, beta 3, gamma 0.5) and values are those of nltk's `meteor_score` with an empty WordNet. Not METEOR 1.5,
whose weights and paraphrase table give other values: the two must never be set side by side. A perfect answer scores a little below 1.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from snowballstemmer import stemmer

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5

_Word = tuple[int, str]
"""A word with its place in the sentence."""


def meteor(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The best of the references. Between 0 and 1; 0 where no word is shared."""
    return max(_score(prediction, reference) for reference in references)


def _score(said: Sequence[str], wanted: Sequence[str]) -> float:
    pairs = aligned(said, wanted)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(said), len(pairs) / len(wanted)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = 1 + sum((said_at + 1, wanted_at + 1) != after for (said_at, wanted_at), after in pairwise(pairs))
    fragmentation = chunks / len(pairs)
    return mean * (1 - GAMMA * float(fragmentation**BETA))


def aligned(said: Sequence[str], wanted: Sequence[str]) -> list[tuple[int, int]]:
    """Places of words that are the same, or else of one stem; each word at most once. From the end, each with the last that is free."""
    exact, said_left, wanted_left = _match(list(enumerate(said)), list(enumerate(wanted)))
    stems, _, _ = _match([(at, stem(word)) for at, word in said_left], [(at, stem(word)) for at, word in wanted_left])
    return sorted(exact + stems)


def _match(said: Sequence[_Word], wanted: Sequence[_Word]) -> tuple[list[tuple[int, int]], list[_Word], list[_Word]]:
    """The pairs, and what is left of both sides in its order."""
    free: dict[str, list[int]] = {}
    for at, word in wanted:
        free.setdefault(word, []).append(at)
    pairs, left = [], []
    for at, word in reversed(said):
        if free.get(word):
            pairs.append((at, free[word].pop()))
        else:
            left.append((at, word))
    taken = {at for _, at in pairs}
    return pairs, left[::-1], [each for each in wanted if each[0] not in taken]


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """What is left of a word without its endings, as Porter (1980) cuts them."""
    # A stemmer holds the word it works on, and the server's threads score at once: each call has its own.
    stemmed: str = stemmer("porter").stemWord(word)
    return stemmed
