"""Metric points are kept as they came, and a chart of many costs what a chart of few does."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlmodel import select

from app.jobs import service as jobs
from app.metrics import chunks
from app.metrics import service as metrics
from app.models import MetricChunk, MetricSeries

NAN, INFINITY = math.nan, math.inf


def points(count, first=1):
    """A falling, noisy loss."""
    noise = random.Random(count)
    return [(step, 1e9 + step / 10, 1 / step + noise.random()) for step in range(first, first + count)]


def append(session, job, added, name="train_loss", attempt=1, batch=700):
    for start in range(0, len(added), batch):
        metrics.append(session, job, attempt, {name: added[start : start + batch]})


def one(session, job, **asked):
    (line,) = metrics.query(session, job.run_id, **asked)
    return line.buckets


def expected(added):
    """What one bucket over these points must say."""
    values = [value for _step, _t, value in added if not math.isnan(value)]
    return (added[0][0], added[-1][0], added[0][1], added[-1][1], min(values, default=NAN), max(values, default=NAN), added[-1][2], len(added))


def same(bucket, added):
    return np.array_equal(np.array(bucket.item()), np.array(expected(added)), equal_nan=True)


def assert_stands_for(buckets, added):
    """The buckets are the points, cut into pieces without gap or overlap."""
    assert buckets["count"].sum() == len(added)
    start = 0
    for bucket in buckets:
        assert same(bucket, added[start : start + bucket["count"]])
        start += bucket["count"]


# Arithmetic


@settings(deadline=None)
@given(st.lists(st.floats(width=64), min_size=1, max_size=200), st.integers(2, 40))
def test_folding_keeps_extremes_last_and_count(values, by):
    added = [(step, float(step), value) for step, value in enumerate(values)]
    folded = chunks.fold(chunks.points(added), by)
    assert_stands_for(folded, added)
    assert len(folded) == -(-len(values) // by)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.floats(), st.floats()), min_size=1, max_size=50))
def test_packing_loses_no_bit(added):
    rows = chunks.points(added)
    assert chunks.unpack(chunks.pack(rows), 0).tobytes() == rows.tobytes()
    buckets = chunks.buckets(rows)
    assert chunks.unpack(chunks.pack(buckets), 1).tobytes() == buckets.tobytes()


@pytest.mark.parametrize("count", [0, 1, 512, 513, 8_192, 8_193, 1_000_000])
def test_every_series_has_a_top_of_one_chunk(count):
    lengths = chunks.lengths(count)
    assert lengths[0] == count and lengths[-1] <= chunks.SIZE
    assert all(above == -(-below // chunks.FOLD) for below, above in pairwise(lengths))


# Series


def test_few_points_come_back_one_by_one(house, session):
    job, _attempt = house.running(session)
    added = points(40)
    append(session, job, added, batch=3)
    assert_stands_for(one(session, job), added)
    assert len(one(session, job)) == 40


@pytest.mark.parametrize(("count", "batch"), [(1_100, 1), (20_000, 100), (40_000, 999), (40_000, 40_000)])
def test_however_they_came_the_levels_are_the_same(house, session, count, batch):
    job, _attempt = house.running(session)
    added = points(count)
    append(session, job, added, batch=batch)
    rows = session.exec(select(MetricChunk).order_by(MetricChunk.level, MetricChunk.number)).all()
    for level, length in enumerate(chunks.lengths(len(added))):
        stored = np.concatenate([chunks.unpack(each.data, level) for each in rows if each.level == level])
        assert len(stored) == length
        assert [each.number for each in rows if each.level == level] == list(range(-(-length // chunks.SIZE)))
        assert_stands_for(chunks.buckets(stored), added)


@pytest.mark.parametrize("asked", [1, 10, 100, 1000, 3000, 50_000])
def test_a_chart_gets_about_as_many_buckets_as_it_asks_for(house, session, asked):
    job, _attempt = house.running(session)
    added = points(20_000)
    append(session, job, added)
    buckets = one(session, job, points=asked)
    assert min(asked, 20_000) <= len(buckets) < 2 * asked or len(buckets) == 20_000
    assert_stands_for(buckets, added)


def test_a_chart_zoomed_in_on_steps_gets_finer_buckets(house, session):
    job, _attempt = house.running(session)
    added = points(20_000)
    append(session, job, added)
    assert_stands_for(one(session, job, from_=5_000, to=5_099, points=100), added[4_998:5_100])
    coarse = one(session, job, from_=5_000, to=9_999, points=100)
    assert coarse[1]["first_step"] <= 5_000 <= coarse[1]["last_step"] and coarse[-2]["first_step"] <= 9_999 <= coarse[-2]["last_step"]
    assert len(one(session, job, from_=30_000, points=100)) == len(one(session, job, to=0, points=100)) == 0


@pytest.mark.parametrize("asked", [4, 60, 5000])
def test_a_line_reaches_both_edges_wherever_they_lie(house, session, asked):
    job, _attempt = house.running(session)
    added = [(step * 10, 1e9 + step, float(step)) for step in range(1, 9_001)]  # chunks of level 0 end at 5,120, 10,240, ...
    append(session, job, added)
    dice = random.Random(asked)
    windows = [sorted(dice.sample(range(11, 90_000), 2)) for _ in range(40)]
    for start, end in [*windows, (5_121, 5_129), (5_120, 5_120), (5_130, 5_130), (10, 90_000), (-5, 95_000), (81_921, 90_000)]:
        buckets = one(session, job, from_=start, to=end, points=asked)
        place = buckets[0]["first_step"] // 10 - 1
        assert_stands_for(buckets, added[place : place + buckets["count"].sum()])
        assert buckets[0]["last_step"] < start or buckets[0]["first_step"] == 10, "a bucket lies before the window, or none does"
        assert buckets[-1]["first_step"] > end or buckets[-1]["last_step"] == 90_000, "a bucket lies behind the window, or none does"
        assert all(start <= each["last_step"] and each["first_step"] <= end for each in buckets[2:-2]), "and little more than one"


def test_a_chart_over_time_is_cut_in_time(house, session):
    job, _attempt = house.running(session)
    added = points(5_000)
    append(session, job, added)
    assert_stands_for(one(session, job, x="time", from_=1e9 + 100, to=1e9 + 109.9, points=100), added[998:1100])


def test_what_is_not_a_number_is_counted_and_kept(house, session):
    job, _attempt = house.running(session)
    added = [(step, float(step), NAN if step % 3 else INFINITY if step % 2 else 1.0) for step in range(1, 3001)]
    added += [(step, float(step), NAN) for step in range(3001, 4001)]
    append(session, job, added)
    buckets = one(session, job, points=30)
    assert_stands_for(buckets, added)
    assert math.isnan(buckets[-1]["max"]) and math.isnan(buckets[-1]["last"])
    assert session.exec(select(MetricSeries)).one().last_value is None
    (line,) = metrics.query(session, job.run_id, points=30)
    assert line.columns()["max"][0] == "Infinity" and line.columns()["last"][-1] == "NaN"


def test_a_clock_that_jumps_back_disturbs_nothing(house, session):
    job, _attempt = house.running(session)
    added = [(step, 1000.0 - step if step > 700 else float(step), 1.0) for step in range(1, 1501)]
    append(session, job, added)
    assert one(session, job, points=20)["count"].sum() == 1500
    assert one(session, job, points=2000, from_=1200)["count"].sum() == 302


def test_several_names_in_one_batch_are_several_series(house, session):
    job, _attempt = house.running(session)
    metrics.append(session, job, 1, {"train_loss": points(3), "lr": points(2), "val_loss": []})
    assert [(each.name, each.count, each.last_step) for each, _stage in metrics.series(session, job.run_id)] == [("lr", 2, 2), ("train_loss", 3, 3)]
    assert [line.name for line in metrics.query(session, job.run_id, names=["lr"])] == ["lr"]
    assert [line.stage for line in metrics.query(session, job.run_id, stage="vision")] == []


# Attempts


def resumed(house, session, job, at):
    """The next attempt, which continues from this step."""
    jobs.lose(session, job, "sweep")
    _job, attempt = house.claim(session)
    attempt.resumed_step = at
    session.add(attempt)
    session.flush()
    return attempt


@pytest.mark.parametrize("asked", [5, 50, 500, 5000])
def test_an_older_attempt_ends_where_the_newer_one_resumed(house, session, asked):
    job, _attempt = house.running(session)
    added, again = points(5_000), points(3_000, first=3_334)
    append(session, job, added)
    append(session, job, again, attempt=resumed(house, session, job, at=3_333).number)
    old, new = metrics.query(session, job.run_id, points=asked)
    assert (old.attempt, new.attempt, old.points) == (1, 2, 5_000)
    assert_stands_for(old.buckets, added[:3_333])
    assert_stands_for(new.buckets, again)
    assert session.exec(select(MetricSeries.count).where(MetricSeries.attempt == 1)).one() == 5_000


@pytest.mark.parametrize("asked", [5, 50, 500])
def test_what_is_next_to_a_zoomed_chart_is_never_beyond_the_cut(house, session, asked):
    job, _attempt = house.running(session)
    append(session, job, points(5_000))
    append(session, job, points(3_000, first=3_334), attempt=resumed(house, session, job, at=3_333).number)
    for start, end in [(3_000, 3_332), (3_000, 3_333), (3_300, 3_500), (3_333, 4_000)]:
        old, new = metrics.query(session, job.run_id, from_=start, to=end, points=asked)
        assert old.buckets[-1]["last_step"] == 3_333
        assert [each["first_step"] for each in new.buckets[:1]] == [3_334] * (end > 3_333)


def test_an_attempt_that_starts_over_hides_all_before_it(house, session):
    job, _attempt = house.running(session)
    append(session, job, points(100))
    resumed(house, session, job, at=60)
    append(session, job, points(50, first=61), attempt=2)
    resumed(house, session, job, at=0)
    append(session, job, points(10), attempt=3)
    assert [line.buckets["count"].sum() for line in metrics.query(session, job.run_id)] == [0, 0, 10]


# Cost


def test_a_chart_of_a_million_points_reads_no_more_than_one_of_a_thousand_asks_for(house, session):
    job, _attempt = house.running(session)
    append(session, job, points(1_000), name="few")
    append(session, job, points(1_000_000), name="many", batch=250_000)
    session.commit()
    few, many = (chunks_read(house, job, name) for name in ("few", "many"))
    assert few == 2
    assert many == 8  # 3,907 buckets of 256 points in chunks of 512
    for zoom in ({"from_": 1, "to": 900_000}, {"from_": 400_000, "to": 410_000}, {"from_": 999_000}, {"from_": 123, "to": 456}):
        # At worst 16 buckets for one that is asked for, and the levels tried on the way down.
        assert chunks_read(house, job, "many", **zoom) <= 16 * 1000 // chunks.SIZE + 2 + 3


def chunks_read(house, job, name, **zoom):
    read = []
    event.listen(MetricChunk, "load", count := lambda chunk, _context: read.append(chunk))
    with house.reading() as session:
        (line,) = metrics.query(session, job.run_id, names=[name], points=1000, **zoom)
    event.remove(MetricChunk, "load", count)
    assert len(line.buckets) < 2000
    return len(read)


def test_appending_rewrites_one_chunk_of_each_level(house, session):
    job, _attempt = house.running(session)
    append(session, job, points(20_000), batch=20_000)
    session.flush()
    written = []
    event.listen(session, "before_flush", lambda each, *_: written.extend(row for row in [*each.dirty, *each.new] if isinstance(row, MetricChunk)))
    append(session, job, points(3, first=20_001))
    session.flush()
    assert sorted((row.level, row.number) for row in written) == [(0, 39), (1, 2), (2, 0)]
