"""An answer beside its references, word by word: what both say, what only the answer says, what it leaves out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Mark = Literal["", "same", "extra", "missing"]
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")


@dataclass(frozen=True)
class Piece:
    """A stretch of text under one mark. Plain text: whoever shows it escapes it."""

    text: str
    mark: Mark


@dataclass(frozen=True)
class Marked:
    """An answer against the reference that is most like it."""

    reference: int
    pieces: list[Piece]
    found: frozenset[int]
    """Numbers of the reference's words that the answer says, in the same order."""


def against(answer: str, references: Sequence[str]) -> Marked:
    """Compare with the reference that shares most words in order. `references` must not be empty."""
    ours = _words(answer)
    matchers = [SequenceMatcher(None, _words(reference), ours, autojunk=False) for reference in references]
    best = max(range(len(matchers)), key=lambda number: matchers[number].ratio())
    blocks = matchers[best].get_matching_blocks()
    same = {place for block in blocks for place in range(block.b, block.b + block.size)}
    found = frozenset(place for block in blocks for place in range(block.a, block.a + block.size))
    return Marked(best, _pieces(answer, ["same" if place in same else "extra" for place in range(len(ours))]), found)


def reference(text: str, found: Iterable[frozenset[int]]) -> list[Piece]:
    """A reference with what none of the answers says marked as missing; no mark at all where no answer was held against it."""
    every = list(found)
    said = frozenset[int]().union(*every)
    return _pieces(text, ["missing" if every and place not in said else "" for place in range(len(_words(text)))])


def _words(text: str) -> list[str]:
    return [match.group().casefold() for match in _WORD.finditer(text)]


def _pieces(text: str, marks: Sequence[Mark]) -> list[Piece]:
    """The text cut where its mark changes. What stands between two words has their mark where they share one."""
    pieces: list[Piece] = []
    end, last = 0, ""
    for match, mark in zip(_WORD.finditer(text), marks, strict=True):
        between = text[end : match.start()]
        if pieces and mark == last:
            pieces[-1] = Piece(pieces[-1].text + between + match.group(), mark)
        else:
            pieces += [Piece(between, ""), Piece(match.group(), mark)]
        end, last = match.end(), mark
    return [piece for piece in [*pieces, Piece(text[end:], "")] if piece.text]
