"""Words that say where something is as seen from the middle of a panorama, and how they move when it is rolled."""

from collections.abc import Sequence

from panollava.metrics.grounding import found

TURN = (
    "in front", "on the right", "behind", "on the left",
    "in front of you", "to your right", "behind you", "to your left",
    "in front of me", "to my right", "behind me", "to my left",
    "at the front", "to the right", "at the back", "to the left",
)  # fmt: skip
"""For data that bring no words of their own: clockwise, four a round. "Behind the sofa" turns with them though it should not."""

WORDS = ("left", "right", "front", "back", "behind", "ahead")
"""A text with one of these speaks of directions, also where nobody can turn it."""


def speaks_of_directions(text: str, phrases: Sequence[str]) -> bool:
    return bool(found(text, [*phrases, *(word for word in WORDS if word not in phrases)]))
