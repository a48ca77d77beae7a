"""A page shows of a log what a terminal would: no control characters, a progress bar once, levels by what a line says."""

import pytest

from app.logs import plain
from app.logs.plain import Level, Row

LINES = {
    "plain": "plain",
    "\x1b[1;31mred\x1b[0m and \x1b[38;5;208morange\x1b[m": "red and orange",
    "\x1b[2K\x1b[1Amoved\x1b[?25l": "moved",
    "\x1b]0;a title\x07text": "text",
    "\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\": "link",
    "\x1b(Bcharset": "charset",
    "cut in the middle \x1b[38;5": "cut in the middle ",
    "cut at once \x1b": "cut at once ",
    "10%\r 20%\r 30%": " 30%",
    "10%\r100%\r": "100%",
    "windows\r": "windows",
    "a\tb\x07\x08\x00c": "a\tbc",
    "  0%|   | 0/9\r\x1b[A 11%|█  | 1/9": " 11%|█  | 1/9",
    "[1]: x[0-9;]m": "[1]: x[0-9;]m",
    "\r\r": "",
    "": "",
}
LEVELS = {
    "12:00:00 I step 1/9": None,
    "12:00:00 W loss is high": Level.warning,
    "12:00:00 E out of memory": Level.error,
    "12:00:00 C the end": Level.error,
    "[rank1]: 12:00:00 W slow": Level.warning,
    "WARNING:root:old": Level.warning,
    "NCCL WARN cannot": Level.warning,
    "/x.py:3: FutureWarning: gone soon": Level.warning,
    "UserWarning is a class": None,
    "ERROR in worker": Level.error,
    "no ERRORS": None,
    "Traceback (most recent call last):": Level.error,
    "[rank0]: Traceback (most recent call last):": Level.error,
    "torch.OutOfMemoryError: CUDA out of memory": Level.error,
    "AssertionError": Level.error,
    "we catch ValueError: never": None,
    "WARNING about an ERROR": Level.error,
    "éWARNING, where é is no letter to a browser": Level.warning,
}


@pytest.mark.parametrize(("line", "shown"), LINES.items())
def test_a_line_is_shown_as_a_terminal_leaves_it(line, shown):
    assert plain.shown(line) == shown


@pytest.mark.parametrize(("line", "level"), LEVELS.items())
def test_a_line_says_its_level(line, level):
    assert list(plain.rows(line, 1)) == [Row(1, line, level)]


@pytest.mark.parametrize(("line", "level"), LEVELS.items())
def test_the_quick_look_never_misses_a_line(line, level):
    assert level is None or plain.may_say(line, level)


def test_rows_are_numbered_from_the_first_and_the_last_line_end_begins_none():
    assert [(row.number, row.text) for row in plain.rows("a\n\nb\r\nc\n", 7)] == [(7, "a"), (8, ""), (9, "b"), (10, "c")]
    assert [(row.number, row.text) for row in plain.rows("a\nb", 1)] == [(1, "a"), (2, "b")]
    assert list(plain.rows("", 1)) == []
