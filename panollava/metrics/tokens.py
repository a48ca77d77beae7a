"""Words of a caption as Stanford's PTBTokenizer would cut them, lower case, without the punctuation that COCO scoring leaves out.

Follows the jar that pycocoevalcap ships on the English of captions. Not on HTML, smileys or abbreviations it never meets there.
"""

import re
from functools import lru_cache

DROPPED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
# pycocoevalcap means to drop brackets too, but looks for "-LRB-" in lower-case text: published scores keep them as words.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
SPLIT = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
    "'tis": ("'t", "is"),
    "'twas": ("'t", "was"),
    "y'all": ("y'", "all"),
}
WHOLE = frozenset(["ma'am", "c'mon"])
WHOLE_AFTER = ("o'", "d'", "l'")
_ABBREVIATED = "mr mrs ms dr prof gen gov sen rep capt sgt lt col st jr sr co inc corp ltd bros etc vs ave blvd rd mt ft dept est univ tel ph.d"
ABBREVIATIONS = frozenset(f"{word}." for word in _ABBREVIATED.split())
CLITICS = ("n't", "'s", "'m", "'re", "'ve", "'ll", "'d")

# Curly quotes, long dashes, the ellipsis, and the soft hyphen, which is no character of the word.
_PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": " - ", "\u2014": " - ", "\u2026": " ", "\u00ad": None})
_RAW = re.compile(
    r"https?://[^\s,]+"
    r"|[^\W_]+(?:(?:[-./'!?_@]|(?<=\d)[:,](?=\d))[^\W_]+)*\.?"  # a word with what may join words, or end an abbreviation
    r"|'(?:s|m|re|ve|ll|d|em|tis|twas|\d\ds)\b"
    r"|[!?]{2,}|[-.]+|_+|\*+|\S"
)
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+")


def tokenize(text: str) -> list[str]:
    """Lower-case words, in order. A text of nothing but punctuation has none."""
    return [part for raw in _RAW.findall(text.lower().translate(_PLAIN)) for part in _parts(raw)]


@lru_cache(maxsize=1 << 16)
def _parts(raw: str) -> tuple[str, ...]:
    """What the tokenizer makes of one run of characters: no word, one, or several."""
    if raw in DROPPED or not raw.strip("-."):
        return ()
    if raw in BRACKETS:
        return (BRACKETS[raw],)
    if raw in SPLIT:
        return SPLIT[raw]
    if raw.endswith(".") and raw not in ABBREVIATIONS and not _ACRONYM.fullmatch(raw):
        return _parts(raw[:-1])
    if "'" in raw and not raw.startswith("'"):
        return _apostrophe(raw)
    return (raw,)


def _apostrophe(raw: str) -> tuple[str, ...]:
    for clitic in CLITICS:
        if raw.endswith(clitic):
            return (*_parts(raw.removesuffix(clitic)), clitic) if raw != clitic else (raw,)
    if raw in WHOLE or raw.startswith(WHOLE_AFTER):
        return (raw,)
    return tuple(part for piece in raw.split("'") for part in _parts(piece))
