"""What a trainer printed can be read from any byte and from any line, whole characters at a time, and searched."""

import random

import pytest
from sqlmodel import select

from app import ingest
from app.errors import NotFound
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.logs import service as logs
from app.logs.plain import Level
from app.models import JobStatus, LogChunk


def tell(session, job, attempt, data, batch):
    for start in range(0, len(data), batch):
        assert ingest.log(session, job, attempt, data[start : start + batch])


@pytest.mark.parametrize("batch", [7, 1000, 300_000])
def test_every_byte_comes_back(house, session, batch):
    job, attempt = house.running(session)
    data = "".join(f"step {n}: loss {n / 7:.4f} ä€😀\n" for n in range(200 if batch == 7 else 20_000)).encode()
    tell(session, job, attempt, data, batch)
    assert attempt.log_offset == len(data)
    text, offset = "", 0
    while offset < len(data):
        part = logs.read(session, job, offset=offset, limit=5_003)
        assert part.offset == offset and part.end == len(data)
        text, offset = text + part.text, part.next
    assert text == data.decode()


def test_a_trainer_that_prints_little_leaves_few_rows(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"0123456789" * 20_000, 1_000)
    assert [row.size for row in session.exec(select(LogChunk).order_by(LogChunk.offset))] == [65_000, 65_000, 65_000, 5_000]


def test_a_negative_offset_counts_from_the_end(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"0123456789" * 10_000, 99_000)
    part = logs.read(session, job, offset=-5)
    assert (part.text, part.offset, part.next) == ("56789", 99_995, 100_000)
    assert logs.read(session, job, offset=-1_000_000, limit=3).text == "012"


def test_beyond_the_end_there_is_nothing_yet(house, session):
    job, attempt = house.running(session)
    assert logs.read(session, job) == logs.Part(job_id=job.id, attempt=1, offset=0, next=0, end=0, line=1, lines=0, text="")
    tell(session, job, attempt, b"abc", 3)
    assert logs.read(session, job, offset=99) == logs.Part(job_id=job.id, attempt=1, offset=3, next=3, end=3, line=1, lines=0, text="")
    with pytest.raises(NotFound, match="no attempt 2; the newest is 1"):
        logs.read(session, job, attempt=2)


def test_bytes_that_are_no_text_are_shown_as_such(house, session):
    job, attempt = house.running(session)
    noise = random.Random(0).randbytes(10_000)
    tell(session, job, attempt, noise, 100)
    finish(session, job.id, attempt.number, JobStatus.failed, actor="test", reason="crashed")
    parts, offset = 0, 0
    while offset < len(noise):
        offset, parts = logs.read(session, job, offset=offset, limit=100).next, parts + 1
        assert parts < 200


def test_a_character_that_is_half_printed_waits_for_its_other_half(house, session):
    job, attempt = house.running(session)
    bar = "50% █".encode()
    tell(session, job, attempt, bar[:-1], 10)
    part = logs.read(session, job)
    assert (part.text, part.next, part.end) == ("50% ", 4, 4)
    tell(session, job, attempt, bar[-1:], 1)
    assert logs.read(session, job, offset=part.next).text == "█"


def test_a_character_that_was_never_printed_whole_shows_when_the_trainer_has_ended(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, "50% █".encode()[:-1], 10)
    finish(session, job.id, attempt.number, JobStatus.failed, actor="test", reason="crashed")
    part = logs.read(session, job)
    assert (part.text, part.next, part.end) == ("50% \ufffd", 6, 6)


def test_each_attempt_has_a_log_of_its_own(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"first", 5)
    jobs.lose(session, job, "sweep")
    _job, again = house.claim(session)
    tell(session, job, again, b"second", 6)
    assert logs.read(session, job).text == "second"
    assert logs.read(session, job, attempt=1).text == "first"


def test_streams_are_told_where_the_new_bytes_are(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"0123456789", 6)
    assert [(each["offset"], each["size"]) for each in house.told(session, "log")] == [(0, 6), (6, 4)]


def lines_of(count):
    return [f"{number}: " + "x" * (number * 37 % 150) for number in range(1, count + 1)]


@pytest.mark.parametrize("batch", [999, 200_000])
def test_every_part_knows_the_number_of_its_line(house, session, batch):
    job, attempt = house.running(session)
    data = "".join(line + "\n" for line in lines_of(5_000)).encode()
    tell(session, job, attempt, data, batch)
    generator = random.Random(0)
    for offset in (0, 64 * 1024, len(data) - 1, len(data), *(generator.randrange(len(data)) for _ in range(200))):
        part = logs.read(session, job, offset=offset, limit=10)
        assert (part.line, part.lines) == (1 + data.count(b"\n", 0, offset), 5_000)


@pytest.mark.parametrize("batch", [999, 200_000])
def test_a_line_is_found_by_its_number(house, session, batch):
    job, attempt = house.running(session)
    data = "".join(line + "\n" for line in lines_of(5_000)).encode()
    tell(session, job, attempt, data, batch)
    for number in (1, 2, 777, 2_500, 4_999, 5_000):
        part = logs.read(session, job, offset=logs.offset_of(session, job, number))
        assert part.line == number and part.text.startswith(f"{number}: ")
    assert logs.offset_of(session, job, 5_001) == logs.offset_of(session, job, 9_999) == len(data)


def test_pieces_of_whole_lines_can_be_read_backwards(house, session):
    job, attempt = house.running(session)
    data = "".join(line + "\n" for line in lines_of(3_000)).encode()
    tell(session, job, attempt, data, 10_000)
    pieces, until = [], len(data)
    while until:
        start = max(0, until - 1_000)
        part = logs.read(session, job, offset=start, limit=until - start, whole_lines=True)
        assert part.text.startswith(f"{part.line}: ") and part.next == until
        pieces, until = [part.text, *pieces], part.offset
    assert "".join(pieces).encode() == data


def test_a_line_longer_than_the_piece_comes_as_it_is(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"first\n" + b"x" * 1_000 + b"\n", 300)
    assert logs.read(session, job, offset=-500, limit=500, whole_lines=True).offset == 507
    assert logs.read(session, job, offset=0, limit=500, whole_lines=True).offset == 0
    assert logs.read(session, job, offset=6, limit=500, whole_lines=True).offset == 6
    assert logs.read(session, job, offset=5, limit=500, whole_lines=True).offset == 6


def test_a_piece_within_a_long_line_begins_with_a_whole_character(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, "█".encode() * 1_000, 300)
    part = logs.read(session, job, offset=-500, limit=500, whole_lines=True)
    assert (part.offset, part.text) == (2_502, "█" * 166)


def test_a_search_tells_where_each_line_is(house, session):
    job, attempt = house.running(session)
    lines = lines_of(5_000)
    tell(session, job, attempt, "\n".join(lines).encode(), 10_000)
    found = logs.search(session, job, "99: ")
    assert [each.line for each in found.lines] == [n for n in range(1, 5_001) if n % 100 == 99]
    assert [each.text for each in found.lines] == [line for line in lines if "99: " in line]
    assert all(logs.read(session, job, offset=each.offset).text.startswith(each.text) for each in found.lines)
    assert found.next == len("\n".join(lines).encode()) - len(lines[-1])


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_a_search_goes_on_where_it_stopped(house, session, limit):
    job, attempt = house.running(session)
    tell(session, job, attempt, "".join(line + "\n" for line in lines_of(3_000)).encode(), 30_000)
    every, found = [], logs.search(session, job, "1: ", limit=limit)
    while found.lines:
        every += [each.line for each in found.lines]
        found = logs.search(session, job, "1: ", offset=found.next, limit=limit)
    assert every == [n for n in range(1, 3_001) if n % 10 == 1]


def test_a_line_is_searched_again_until_it_has_ended(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"a\nloss ", 9)
    found = logs.search(session, job, "loss")
    assert ([each.text for each in found.lines], found.next) == (["loss "], 2)
    tell(session, job, attempt, b"1.5\nb\n", 9)
    found = logs.search(session, job, "loss", offset=found.next)
    assert ([each.text for each in found.lines], found.next) == (["loss 1.5"], 13)


def test_a_search_from_the_middle_of_a_line_leaves_that_line_out(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"x" * 70_000 + b" loss\nloss\n", 70_000)
    assert [each.line for each in logs.search(session, job, "loss", offset=70_000).lines] == [2]
    assert [each.line for each in logs.search(session, job, "loss", offset=70_006).lines] == [2]
    assert logs.search(session, job, "loss", offset=70_007).lines == []


def test_colours_and_progress_bars_do_not_hide_a_line_from_a_search(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"\x1b[1mloss\x1b[0m 0.5\n10% done\r20% done\r30%\nnothing\n", 100)
    assert [each.text for each in logs.search(session, job, "loss 0.5").lines] == ["loss 0.5"]
    assert [each.text for each in logs.search(session, job, "DONE").lines] == ["20% done"]


def test_a_search_by_level_finds_lines_that_say_it(house, session):
    job, attempt = house.running(session)
    text = "12:00:00 I fine\n\x1b[33mWARNING\x1b[0m hot\nx.py:1: UserWarning: old\nTraceback (most recent call last):\n  File\nKeyError: 1\n"
    tell(session, job, attempt, text.encode(), 20)
    assert [each.line for each in logs.search(session, job, level=Level.warning).lines] == [2, 3]
    assert [each.line for each in logs.search(session, job, level=Level.error).lines] == [4, 6]
    assert [each.line for each in logs.search(session, job, "old", Level.warning).lines] == [3]


def test_a_download_is_what_was_there_when_it_began(house, session):
    job, attempt = house.running(session)
    data = random.Random(0).randbytes(300_000)
    tell(session, job, attempt, data, 70_000)
    session.commit()
    number, end = logs.reach(session, job)
    pieces = logs.download(house.reading, job.id, number, end)
    got = next(pieces)
    tell(session, job, attempt, b"more", 4)
    session.commit()
    assert got + b"".join(pieces) == data


def test_a_download_of_a_run_that_is_deleted_meanwhile_says_so(house, session):
    job, attempt = house.running(session)
    tell(session, job, attempt, b"x" * 100_000, 50_000)
    session.commit()
    pieces = logs.download(house.reading, job.id, *logs.reach(session, job))
    next(pieces)
    session.delete(job)
    session.commit()
    with pytest.raises(NotFound, match="deleted while it was read"):
        list(pieces)
