"""ROUGE-L in its COCO form: longest common subsequence, beta 1.2, best precision and best recall over the references."""

from collections.abc import Sequence

BETA = 1.2


def rouge_l(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Between 0 and 1; 0 for an empty prediction. Best precision and best recall may come from different references."""
    common = common_lengths(prediction, references)
    if not any(common):
        return 0.0
    precision = max(common) / len(prediction)
    recall = max(length / max(1, len(reference)) for length, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_lengths(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Length of the longest common subsequence with each reference.

    The rows of the usual table as bits of one integer (Hyyrö 2004): a 0 marks a word of the prediction where the length grows.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(prediction):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(prediction)) - 1
    lengths = []
    for reference in references:
        row = full
        for word in reference:
            if matches := row & places.get(word, 0):
                row = (row + matches | row - matches) & full
        lengths.append(len(prediction) - row.bit_count())
    return lengths
