"""A smoothed line is the mean over every point so far, whatever the chart shows of it and however often the job was resumed."""

import math
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.jobs import service as jobs
from app.jobs.finish import finish
from app.metrics import service as metrics
from app.metrics.smoothing import smooth
from app.models import JobStatus
from panollava.events import StageEvent

NAN, INFINITY = math.nan, math.inf


def oracle(values, weight):
    """The smoothed value and the number of finite values after each value, one by one."""
    s, n, smoothed = 0.0, 0, []
    for y in values:
        if math.isfinite(y):
            s, n = weight * s + (1 - weight) * y, n + 1
        smoothed.append((s / (1 - weight**n) if n else NAN, n))
    return smoothed


def points(count, first=1, holes=True):
    """A noisy loss with some values that are no numbers, from the first one on."""
    dice = random.Random(count + first)
    strange = {0: NAN, 1: INFINITY, 2: -INFINITY} if holes else {}
    return [(step, 1e9 + step, NAN if holes and step < 5 else strange.get(dice.randrange(40), dice.random())) for step in range(first, first + count)]


def append(session, job, added, name="train_loss", attempt=1):
    for start in range(0, len(added), 900):
        metrics.append(session, job, attempt, {name: added[start : start + 900]})


def resumed(house, session, job, at):
    """Number of the next attempt, which continues from this step."""
    jobs.lose(session, job, "sweep")
    _job, attempt = house.claim(session)
    attempt.resumed_step = at
    session.add(attempt)
    session.flush()
    return attempt.number


def assert_smoothed(line, added, weight):
    """Each bucket has the smoothed value at its last point; `added` are the points that count, from the first of the first attempt on."""
    of_step = {step: smoothed for (step, _t, _y), smoothed in zip(added, oracle([y for _step, _t, y in added], weight), strict=True)}
    expected = [of_step[step] for step in line.buckets["last_step"].tolist()]
    assert np.allclose(line.ema.values, [ema for ema, _n in expected], rtol=1e-11, equal_nan=True)
    assert line.ema.counts.tolist() == [n for _ema, n in expected]
    assert line.ema_count == (expected[-1][1] if expected else 0)


# Arithmetic

any_value = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([NAN, INFINITY, -INFINITY]))


@settings(deadline=None)
@given(st.lists(any_value, min_size=1, max_size=300), st.floats(0.001, 0.9999), st.data())
def test_it_is_what_a_loop_over_all_values_says(values, weight, data):
    ends = sorted(data.draw(st.lists(st.integers(1, len(values)), min_size=1, max_size=20)))
    curve, expected = smooth(np.array(values), np.array(ends), weight), oracle(values, weight)
    largest = max((abs(y) for y in values if math.isfinite(y)), default=0.0)
    assert np.allclose(curve.values, [expected[end - 1][0] for end in ends], rtol=1e-9, atol=1e-10 * largest, equal_nan=True)
    assert curve.counts.tolist() == [expected[end - 1][1] for end in ends]


@settings(deadline=None)
@given(st.floats(5e-324, 1, exclude_max=True))
@example(math.nextafter(1, 0))
def test_a_constant_stays_what_it_is_whatever_the_weight(weight):
    curve = smooth(np.full(3000, 0.25), np.array([1, 2, 3, 2500, 3000]), weight)
    assert np.allclose(curve.values, 0.25, rtol=1e-9)


def test_a_long_series_forgets_its_beginning():
    values = np.concatenate([np.full(200_000, 1e6), np.full(200_000, 1.0)])
    assert np.allclose(smooth(values, np.array([200_000, 400_000]), 0.99).values, [1e6, 1.0], rtol=1e-12)


# Lines


@pytest.mark.parametrize("asked", [1, 7, 100, 1_000, 50_000])
@pytest.mark.parametrize("weight", [0.1, 0.9, 0.999])
def test_every_bucket_has_the_smoothed_value_at_its_last_point(house, session, asked, weight):
    job, _attempt = house.running(session)
    added = points(12_000)
    append(session, job, added)
    (line,) = metrics.query(session, job.run_id, points=asked, smooth=weight)
    assert_smoothed(line, added, weight)
    assert line.ema_count == sum(math.isfinite(y) for _step, _t, y in added) < 12_000


def test_zooming_never_changes_the_curve(house, session):
    job, _attempt = house.running(session)
    added = points(12_000)
    append(session, job, added)
    for asked, (start, end) in [(10, (1, 9_000)), (100, (5_000, 5_099)), (50, (513, 520)), (1_000, (3_000, None)), (9, (None, 4_000)), (5, (2, 3))]:
        for x, at in (("step", 0), ("time", 1e9)):
            window = {"from_": start and start + at, "to": end and end + at}
            (line,) = metrics.query(session, job.run_id, points=asked, smooth=0.9, x=x, **window)
            assert len(line.buckets) >= 2
            assert_smoothed(line, added, 0.9)


def test_what_is_no_number_neither_enters_nor_resets_it(house, session):
    job, _attempt = house.running(session)
    append(session, job, [(step, float(step), y) for step, y in enumerate([NAN, 4.0, INFINITY, NAN, 2.0, NAN], 1)])
    (line,) = metrics.query(session, job.run_id, smooth=0.5)
    assert line.columns()["ema"] == ["NaN", 4.0, 4.0, 4.0, pytest.approx(8 / 3), pytest.approx(8 / 3)]
    assert (line.ema_count, line.points) == (2, 6)


def test_a_browser_goes_on_from_the_last_value_and_its_count(house, session):
    job, _attempt = house.running(session)
    added, w = points(3_000), 0.95
    append(session, job, added[:2_000])
    (before,) = metrics.query(session, job.run_id, points=20, smooth=w)
    n = before.ema_count
    s = before.ema.values[-1] * (1 - w**n)
    for _step, _t, y in added[2_000:]:
        if math.isfinite(y):
            s, n = w * s + (1 - w) * y, n + 1
    append(session, job, added[2_000:])
    (after,) = metrics.query(session, job.run_id, points=20, smooth=w)
    assert (s / (1 - w**n), n) == (pytest.approx(after.ema.values[-1], rel=1e-11), after.ema_count)


def test_a_line_that_nobody_wants_smoothed_has_no_ema(house, session):
    job, _attempt = house.running(session)
    append(session, job, points(10))
    (line,) = metrics.query(session, job.run_id)
    assert (line.ema, line.ema_count, "ema" in line.columns()) == (None, None, False)


def test_each_name_and_each_stage_has_a_curve_of_its_own(house, session):
    job, attempt = house.running(session, stage="resampler,finetune")
    append(session, job, points(700, holes=False), name="lr")
    append(session, job, points(50))
    best = house.saved(attempt, 5, "epoch", "epoch=00-val_loss=1.000.ckpt", val_loss=1.0)
    house.tell(session, job, attempt, best)
    finish(session, job.id, attempt.number, JobStatus.succeeded, actor="one", reason="succeeded", exit_code=0, best=best.path)
    following, attempt = house.claim(session)
    house.tell(session, following, attempt, StageEvent(name="finetune", status="started"))
    append(session, following, points(80, first=2))
    lr, first, second = metrics.query(session, job.run_id, smooth=0.9)
    assert [(line.name, line.stage) for line in (lr, first, second)] == [("lr", "resampler"), ("train_loss", "resampler"), ("train_loss", "finetune")]
    assert_smoothed(lr, points(700, holes=False), 0.9)
    assert_smoothed(first, points(50), 0.9)
    assert_smoothed(second, points(80, first=2), 0.9)


# Attempts


@pytest.mark.parametrize("asked", [5, 50, 5000])
@pytest.mark.parametrize("window", [{}, {"from_": 2_000, "to": 3_000}, {"from_": 3_300, "to": 3_400}, {"from_": 5_000}])
def test_it_goes_on_from_the_step_where_a_newer_attempt_resumed(house, session, asked, window):
    job, _attempt = house.running(session)
    older, newer = points(5_000), points(4_000, first=3_334)
    append(session, job, older)
    append(session, job, newer, attempt=resumed(house, session, job, at=3_333))
    counted = older[:3_333] + newer
    for line in metrics.query(session, job.run_id, points=asked, smooth=0.99, **window):
        assert_smoothed(line, counted, 0.99)


def test_attempts_that_were_started_over_leave_nothing_in_it(house, session):
    job, _attempt = house.running(session)
    append(session, job, points(100))
    append(session, job, points(50, first=61), attempt=resumed(house, session, job, at=60))
    append(session, job, points(200, holes=False), attempt=resumed(house, session, job, at=0))
    first, second, third = metrics.query(session, job.run_id, smooth=0.9)
    assert (len(first.buckets), first.ema_count, len(second.buckets), second.ema_count) == (0, 0, 0, 0)
    assert_smoothed(third, points(200, holes=False), 0.9)


def test_a_short_attempt_between_two_others_keeps_its_place(house, session):
    job, _attempt = house.running(session)
    attempts = [points(1_000), points(30, first=601), points(600, first=621)]
    append(session, job, attempts[0])
    append(session, job, attempts[1], attempt=resumed(house, session, job, at=600))
    append(session, job, attempts[2], attempt=resumed(house, session, job, at=620))
    counted = attempts[0][:600] + attempts[1][:20] + attempts[2]
    lines = metrics.query(session, job.run_id, smooth=0.9, points=40)
    assert [int(line.buckets["count"].sum()) for line in lines] == [600, 20, 600]
    for line in lines:
        assert_smoothed(line, counted, 0.9)
