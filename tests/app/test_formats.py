"""How pages write sizes, numbers and times."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from app import formats


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.98 kB"), (1536, "1.50 kB"), (3.4 * 2**20, "3.40 MB"), (212 * 2**20, "212 MB"),
     (12.34 * 2**30, "12.3 GB"), (5e15, "4547 TB")],
)  # fmt: skip
def test_sizes_have_three_figures(count, text):
    assert formats.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), ("NaN", "NaN"), (math.inf, "∞"), (0, "0"), (0.0, "0"), (12480, "12,480"), (3.0, "3"), (0.19342, "0.1934"), (1.8424, "1.842"),
        (6.31e-5, "6.31e-5"), (-0.5, "-0.5000"), (1234.5678, "1,235"), (2.5e7 + 0.5, "2.50e7"),
    ],
)  # fmt: skip
def test_numbers_have_four_figures(value, text):
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0 s"), (0.25, "0.25 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h"), (13_260, "3 h 41 min"), (7200, "2 h"),
     (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds, text):
    assert formats.duration(seconds) == text


def test_what_lies_ahead_by_a_clock_that_differs_is_now():
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert formats.ago(now + timedelta(seconds=2), now) == "0 s ago"
    assert formats.ago(now - timedelta(minutes=3), now) == "3 min ago"
