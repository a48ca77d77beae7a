"""What a trainer printed can be read from any byte, whole characters at a time."""

import random

import pytest
from sqlmodel import select

from app import ingest
from app.jobs import service as jobs
from app.logs import service as logs
from app.models import LogChunk


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
    assert logs.read(session, job) == logs.Part(attempt=1, offset=0, next=0, end=0, text="")
    tell(session, job, attempt, b"abc", 3)
    assert logs.read(session, job, offset=99) == logs.Part(attempt=1, offset=3, next=3, end=3, text="")


def test_bytes_that_are_no_text_are_shown_as_such(house, session):
    job, attempt = house.running(session)
    noise = random.Random(0).randbytes(10_000)
    tell(session, job, attempt, noise, 100)
    parts, offset = 0, 0
    while offset < len(noise):
        offset, parts = logs.read(session, job, offset=offset, limit=100).next, parts + 1
        assert parts < 200


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
