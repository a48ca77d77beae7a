"""Lists of runs: newest first, by cursor, and as cheap for fifty as for one."""

import pytest
from sqlalchemy import event

from app.errors import NotFound
from app.jobs import waiting
from app.runs import service as runs


def test_pages_follow_each_other_without_gap_or_overlap(house, session):
    made = [house.create(session).id for _ in range(5)]
    first = runs.page(session, limit=3)
    rest = runs.page(session, cursor=first[-1].id, limit=3)
    assert [run.id for run in [*first, *rest]] == made[::-1]


def test_a_run_that_does_not_exist_is_named(session):
    with pytest.raises(NotFound, match="There is no run 7"):
        runs.get(session, 7)


def test_a_long_page_takes_as_many_queries_as_a_short_one(house):
    with house.writing.begin() as session:
        for _ in range(20):
            house.create(session, stage="all")
    assert queries(house, limit=20) == queries(house, limit=2) == 6


def queries(house, limit):
    counted = []
    event.listen(house.engine, "before_cursor_execute", count := lambda *given: counted.append(given[2].startswith("SELECT")))
    with house.reading() as session:
        states = runs.states(session, runs.page(session, limit=limit))
        waiting.reasons(session, [state.current.job for state in states.values()])
    event.remove(house.engine, "before_cursor_execute", count)
    assert len(states) == limit
    return sum(counted)
