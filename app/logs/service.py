"""What a trainer printed, in compressed chunks at their byte offsets: appended as it comes, read from any byte, searched line by line.

Bytes are kept as they came; what a person sees of them is in `app/logs/plain.py`.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.errors import NotFound
from app.i18n import _
from app.logs import plain
from app.logs.plain import Level
from app.models import ACTIVE, Job, LogChunk

CHUNK = 64 * 1024
"""Bytes up to which the last chunk grows. A trainer that prints little would otherwise leave a row for every line."""
LONGEST = 4000
"""Characters of a found line that are told."""


def append(session: Session, job: Job, attempt: int, offset: int, data: bytes) -> None:
    """Store bytes that the attempt's output holds at `offset`, right behind those that are stored."""
    tail = _last(session, job.id, attempt)
    lines = data.count(b"\n") + (tail.lines if tail else 0)
    if tail and tail.size + len(data) <= CHUNK:
        data = zlib.decompress(tail.data) + data
        session.add(tail.sqlmodel_update(_filled(data, lines)))
    else:
        session.add(LogChunk(job_id=job.id, attempt=attempt, offset=offset, **_filled(data, lines)))
    session.flush()


def _filled(data: bytes, lines: int) -> dict[str, Any]:
    return {"size": len(data), "lines": lines, "data": zlib.compress(data, level=1)}


def _mine(job_id: int, attempt: int) -> tuple[bool, bool]:
    return LogChunk.job_id == job_id, LogChunk.attempt == attempt


def _last(session: Session, job_id: int, attempt: int) -> LogChunk | None:
    return session.exec(select(LogChunk).where(*_mine(job_id, attempt)).order_by(col(LogChunk.offset).desc()).limit(1)).first()


def _number(job: Job, attempt: int | None) -> int:
    if attempt is not None and attempt > job.attempt:
        raise NotFound(_("There is no attempt {attempt}; the newest is {newest}.").format(attempt=attempt, newest=job.attempt))
    return attempt or job.attempt


# Reading


@dataclass(frozen=True)
class Part:
    """A piece of an attempt's output. Ask for what follows at `next`; `end` is how far the output reaches."""

    job_id: int
    attempt: int
    offset: int
    next: int
    end: int
    line: int
    """Number of the line in which `offset` lies; the first is 1."""
    lines: int
    """Line ends in the whole output."""
    text: str

    @property
    def rows(self) -> list[plain.Row]:
        """Its lines, for a page without scripts."""
        return list(plain.rows(self.text, self.line))


def read(session: Session, job: Job, attempt: int | None = None, offset: int = 0, limit: int = CHUNK, *, whole_lines: bool = False) -> Part:
    """Up to `limit` bytes from `offset` on, of the newest attempt unless told otherwise; a negative offset counts from the end.

    With `whole_lines` the piece begins with the first line that begins in it, if one does, else with a whole character. A character that the
    limit would cut, or that is only half printed yet, is left for the next part. Bytes that are not UTF-8 show as U+FFFD.
    Raises NotFound for an attempt that never was.
    """
    number = _number(job, attempt)
    last = _last(session, job.id, number)
    end, lines = (last.offset + last.size, last.lines) if last else (0, 0)
    start = min(offset, end) if offset >= 0 else max(0, end + offset)
    before = 1 if whole_lines and start else 0  # a line begins at `start` if the byte before it ends one
    data, line = _bytes(session, job.id, number, start - before, limit + before)
    if before:
        cut = data.find(b"\n", 0, -1) + 1 or before + _torn(data[before:])
        data, line, start = data[cut:], line + data.count(b"\n", 0, cut), start - before + cut
    if start + len(data) < end:
        data = _whole_characters(data) or data
    elif number == job.attempt and job.status in ACTIVE:
        data = _whole_characters(data)
        end = start + len(data)
    return Part(job.id, number, start, start + len(data), end, line or lines + 1, lines, data.decode(errors="replace"))


def _bytes(session: Session, job_id: int, attempt: int, start: int, limit: int) -> tuple[bytes, int]:
    """What lies there, and the number of the line in which it begins; 0 when there is nothing."""
    inside = (col(LogChunk.offset) < start + limit, LogChunk.offset + LogChunk.size > start)
    found = session.exec(select(LogChunk).where(*_mine(job_id, attempt), *inside).order_by(col(LogChunk.offset))).all()
    if not found:
        return b"", 0
    pieces = [zlib.decompress(each.data) for each in found]
    skipped = start - found[0].offset
    return b"".join(pieces)[skipped:][:limit], _line_at(found[0], pieces[0], skipped)


def _line_at(chunk: LogChunk, data: bytes, position: int) -> int:
    return chunk.lines - data.count(b"\n", position) + 1


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


def _torn(data: bytes) -> int:
    """How many of the first bytes end a character that begins before them."""
    return next((count for count, byte in enumerate(data[:4]) if not 0x80 <= byte < 0xC0), 0)


def offset_of(session: Session, job: Job, line: int, attempt: int | None = None) -> int:
    """The byte at which that line begins, or at which the output ends if it has no such line. Raises NotFound as `read`."""
    number = _number(job, attempt)
    if line == 1:
        return 0
    query = select(LogChunk).where(*_mine(job.id, number), LogChunk.lines >= line - 1).order_by(col(LogChunk.offset)).limit(1)
    if not (chunk := session.exec(query).first()):
        return reach(session, job, number)[1]
    data, position = zlib.decompress(chunk.data), -1
    for _each in range(line - _line_at(chunk, data, 0)):
        position = data.index(b"\n", position + 1)
    return chunk.offset + position + 1


def reach(session: Session, job: Job, attempt: int | None = None) -> tuple[int, int]:
    """The attempt that is meant and how far its output reaches. Raises NotFound as `read`."""
    number = _number(job, attempt)
    last = _last(session, job.id, number)
    return number, last.offset + last.size if last else 0


def download(sessions: Callable[[], Session], job_id: int, attempt: int, end: int) -> Iterator[bytes]:
    """The output up to byte `end`, a chunk at a time, each in a session of its own: a slow reader holds no transaction open.

    Raises NotFound when the run is deleted meanwhile.
    """
    at = 0
    query = select(LogChunk).where(*_mine(job_id, attempt)).order_by(col(LogChunk.offset).desc()).limit(1)
    while at < end:
        with sessions() as session:
            chunk = session.exec(query.where(col(LogChunk.offset) <= at)).first()
        piece = zlib.decompress(chunk.data)[at - chunk.offset : end - chunk.offset] if chunk else b""
        if not piece:
            raise NotFound(_("The log of job {id} was deleted while it was read.").format(id=job_id))
        at += len(piece)
        yield piece


# Searching


@dataclass(frozen=True)
class Found:
    """A line that holds what was searched for, where it begins, and what a terminal shows of it."""

    offset: int
    line: int
    text: str


@dataclass(frozen=True)
class Finds:
    """Some of the lines that were searched for. The search goes on at `next`, where at the end the line begins that is not ended yet."""

    attempt: int
    next: int
    lines: list[Found]


def search(
    session: Session, job: Job, text: str = "", level: Level | None = None, attempt: int | None = None, offset: int = 0, limit: int = 200
) -> Finds:  # fmt: skip
    """The first `limit` lines that begin at `offset` or later, contain the text whatever the case of its letters, and are of the level.

    Of a progress bar the last state that does is told; colours and cursor moves do not count. Raises NotFound as `read`.
    """
    number, wanted = _number(job, attempt), _Wanted(text.casefold(), level)
    found: list[Found] = []
    start = offset
    for start, line, block in _blocks(session, job.id, number, offset):
        if not block or not wanted.may_be_in(plain.strip(block.decode(errors="replace"))):
            continue
        at = start
        for row, raw in enumerate(block.removesuffix(b"\n").split(b"\n"), line):
            if at >= offset and (state := wanted.state_of(raw.decode(errors="replace"))) is not None:
                found.append(Found(at, row, state[:LONGEST]))
            at += len(raw) + 1
            if len(found) == limit:
                return Finds(number, at, found)
    return Finds(number, max(start, offset), found)


@dataclass(frozen=True)
class _Wanted:
    text: str
    level: Level | None

    def may_be_in(self, lines: str) -> bool:
        return self.text in lines.casefold() and (self.level is None or plain.may_say(lines, self.level))

    def state_of(self, line: str) -> str | None:
        """The last state of the line that is wanted."""
        return next((state for state in reversed(plain.states(line)) if self._is(state)), None)

    def _is(self, state: str) -> bool:
        return self.text in state.casefold() and (self.level is None or plain.says(state, self.level))


def _blocks(session: Session, job_id: int, attempt: int, offset: int) -> Iterator[tuple[int, int, bytes]]:
    """Whole lines, many at a time, each time with the byte and the number of the first; at the end the line that is not ended yet, or nothing.

    They begin with the line that holds the byte before `offset`, or within it.
    """
    query = select(LogChunk).where(*_mine(job_id, attempt), LogChunk.offset + LogChunk.size >= offset).order_by(col(LogChunk.offset))
    start, line, rest = -1, 1, bytearray()
    for chunk in session.exec(query.execution_options(yield_per=16)):
        data = zlib.decompress(chunk.data)
        if start < 0:
            start, line = chunk.offset, _line_at(chunk, data, 0)
        cut = data.rfind(b"\n") + 1
        if cut:
            block = bytes(rest) + data[:cut]
            yield start, line, block
            start, line, rest = start + len(block), line + block.count(b"\n"), bytearray()
        rest += data[cut:]
    yield start, line, bytes(rest)
