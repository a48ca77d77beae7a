"""What a trainer printed, in compressed chunks at their byte offsets: appended as it comes, read from any byte."""

import zlib
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.models import Job, LogChunk

CHUNK = 64 * 1024
"""Bytes up to which the last chunk grows. A trainer that prints little would otherwise leave a row for every line."""


def append(session: Session, job: Job, attempt: int, offset: int, data: bytes) -> None:
    """Store bytes that the attempt's output holds at `offset`, right behind those that are stored."""
    mine = (LogChunk.job_id == job.id, LogChunk.attempt == attempt)
    tail = session.exec(select(LogChunk).where(*mine).order_by(col(LogChunk.offset).desc()).limit(1)).first()
    if tail and tail.size + len(data) <= CHUNK:
        data = zlib.decompress(tail.data) + data
        session.add(tail.sqlmodel_update(_filled(data)))
    else:
        session.add(LogChunk(job_id=job.id, attempt=attempt, offset=offset, **_filled(data)))
    session.flush()


def _filled(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "data": zlib.compress(data, level=1)}


@dataclass(frozen=True)
class Part:
    """A piece of an attempt's output. Ask for what follows at `next`; `end` is how far the output reaches."""

    attempt: int
    offset: int
    next: int
    end: int
    text: str


def read(session: Session, job: Job, attempt: int | None = None, offset: int = 0, limit: int = CHUNK) -> Part:
    """Up to `limit` bytes from `offset` on, of the newest attempt unless told otherwise; a negative offset counts from the end.

    A character that the limit would cut is left for the next part. Bytes that are not UTF-8 show as U+FFFD.
    """
    number = attempt or job.attempt
    mine = (LogChunk.job_id == job.id, LogChunk.attempt == number)
    last = session.exec(select(LogChunk.offset, LogChunk.size).where(*mine).order_by(col(LogChunk.offset).desc()).limit(1)).first()
    end = sum(last) if last else 0
    start = min(offset, end) if offset >= 0 else max(0, end + offset)
    inside = (col(LogChunk.offset) < start + limit, LogChunk.offset + LogChunk.size > start)
    found = session.exec(select(LogChunk).where(*mine, *inside).order_by(col(LogChunk.offset))).all()
    data = b"".join(zlib.decompress(each.data) for each in found)
    if found:
        data = data[start - found[0].offset :][:limit]
    if start + len(data) < end:
        data = _whole_characters(data) or data
    return Part(number, start, start + len(data), end, data.decode(errors="replace"))


@dataclass(frozen=True)
class Found:
    """A line that holds what was searched for, and where it begins."""

    offset: int
    line: str


def search(session: Session, job: Job, text: str, attempt: int | None = None, offset: int = 0, limit: int = 200) -> list[Found]:
    """The first `limit` lines from `offset` on that contain the text, letter for letter."""
    mine = (LogChunk.job_id == job.id, LogChunk.attempt == (attempt or job.attempt), LogChunk.offset + LogChunk.size > offset)
    found: list[Found] = []
    start, rest, wanted = 0, b"", text.encode()
    for chunk in session.exec(select(LogChunk).where(*mine).order_by(col(LogChunk.offset)).execution_options(yield_per=16)):
        if not rest:
            start = chunk.offset
        *lines, rest = (rest + zlib.decompress(chunk.data)).split(b"\n")
        for line in lines:
            if wanted in line and start >= offset:
                found.append(Found(start, line.decode(errors="replace")))
            start += len(line) + 1
        if len(found) >= limit:
            return found[:limit]
    return [*found, Found(start, rest.decode(errors="replace"))] if wanted in rest else found


def _whole_characters(data: bytes) -> bytes:
    """Without the first bytes of a character at the end, which has up to four."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # a character begins here
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if length > back else data
        if byte < 0x80:
            return data
    return data
