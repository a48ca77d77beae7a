"""The times that docs/reliability.md promises are those of the code."""

import re
from pathlib import Path

import pytest

from app.jobs.states import PATIENCE
from app.jobs.stopping import KILL_AFTER, TERM_AFTER
from worker import __main__ as program
from worker import follow, lease
from worker.recover import TAKEOVER

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
TIMES = {
    "a worker tells the database": [follow.HEARTBEAT_SECONDS],
    "call a silent job *lost*": [PATIENCE.total_seconds()],
    "touches its trainer's lease": [lease.RENEW_SECONDS],
    "a trainer that has no worker": [lease.LEASE_SECONDS],
    "a worker looks for work": [program.SWEEP_SECONDS],
    "silent elsewhere": [TAKEOVER.total_seconds()],
    "a worker judges nobody's silence": [PATIENCE.total_seconds()],
    "a stop: the file": [TERM_AFTER, KILL_AFTER],
    "between two tries": [follow.POLL_SECONDS, follow.LONGEST_WAIT],
}


@pytest.mark.parametrize("what", TIMES)
def test_a_time_of_the_page_is_the_codes(what):
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and what in line]
    assert [float(number) for number in re.findall(r"[\d.]+(?= s\b)", row.split("|")[2])] == TIMES[what]
