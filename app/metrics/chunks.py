"""Points and buckets as arrays, their compressed bytes, and how buckets are folded. Pure arithmetic: no database.

Level 0 of a series holds its points; a row of level k + 1 is a bucket over FOLD rows of level k. Levels are cut into chunks of
SIZE rows. A level exists as soon as the one below fills more than one chunk, so every series has a top of at most one chunk.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SIZE = 512
"""Small chunks are cheap to append to, large ones to read; of 256, 512 and 1024 this one was fastest at both together."""
FOLD = 16
POINT = np.dtype([("step", "<i8"), ("t", "<f8"), ("value", "<f8")])
BUCKET = np.dtype(
    [
        ("first_step", "<i8"),
        ("last_step", "<i8"),
        ("first_t", "<f8"),  # seconds since 1970
        ("last_t", "<f8"),
        ("min", "<f8"),  # NaN only where every point is
        ("max", "<f8"),
        ("last", "<f8"),
        ("count", "<i8"),  # points, NaN or not
    ]
)
Rows = npt.NDArray[np.void]
"""A structured array of POINT or BUCKET. [n]"""

_OF_POINT = {"first_step": "step", "last_step": "step", "first_t": "t", "last_t": "t", "min": "value", "max": "value", "last": "value"}
# The clock of a trainer may jump back; then a bucket still says from when to when it reaches.
_COMBINE = {
    "first_step": np.minimum, "last_step": np.maximum, "first_t": np.minimum, "last_t": np.maximum,
    "min": np.fmin, "max": np.fmax, "count": np.add,
}  # fmt: skip


def points(triples: Sequence[tuple[int, float, float]]) -> Rows:
    """(step, t, value) -> POINT rows. [n]"""
    return np.array(list(triples), POINT)


def pack(rows: Rows) -> bytes:
    """Column by column, because neighbours in a column are alike."""
    return zlib.compress(b"".join(rows[name].tobytes() for name in rows.dtype.names or ()), level=1)


def unpack(data: bytes, level: int) -> Rows:
    kind = BUCKET if level else POINT
    raw = zlib.decompress(data)
    rows = np.empty(len(raw) // kind.itemsize, kind)
    for place, name in enumerate(kind.names or ()):
        rows[name] = np.frombuffer(raw, kind[name], len(rows), place * 8 * len(rows))  # every field has 8 bytes
    return rows


def buckets(rows: Rows) -> Rows:
    """A point is a bucket of one; a bucket stays what it is. [n] -> [n]"""
    if rows.dtype == BUCKET:
        return rows
    ones = np.ones(len(rows), BUCKET)
    for name, source in _OF_POINT.items():
        ones[name] = rows[source]
    return ones


def fold(rows: Rows, by: int = FOLD) -> Rows:
    """Buckets over `by` rows each, the last one over what is left. [n] -> [ceil(n / by)]; n is at least 1."""
    rows = buckets(rows)
    starts = np.arange(0, len(rows), by)
    folded = np.empty(len(starts), BUCKET)
    folded["last"] = rows["last"][np.minimum(starts + by, len(rows)) - 1]
    for name, combine in _COMBINE.items():
        folded[name] = combine.reduceat(rows[name], starts)
    return folded


def lengths(count: int) -> list[int]:
    """Rows of each level of a series of so many points, the points first; a new series has an empty level 0."""
    rows = [count]
    while rows[-1] > SIZE:
        rows.append(-(-rows[-1] // FOLD))
    return rows
