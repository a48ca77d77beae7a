"""Lists of runs: newest first or in another order, by cursor, searched, filtered by what pages show, and as cheap for fifty as for one."""

import itertools
import random
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import event, text
from sqlmodel import select

from app import db
from app.errors import Invalid, NotFound
from app.jobs import states
from app.jobs.finish import finish
from app.jobs.states import move_on
from app.models import ACTIVE, Attempt, Checkpoint, Job, JobStatus, Run, StageRun
from app.runs import service as runs
from app.runs.table import lists, rows
from app.runs.table.lists import Shown, Sort, Wanted
from panollava.stages import Stage

ALL = 10_000


def test_pages_follow_each_other_without_gap_or_overlap(house, session):
    made = [house.create(session).id for _ in range(5)]
    first = lists.page(session, limit=3)
    rest = lists.page(session, cursor=first[-1].id, limit=3)
    assert [run.id for run in [*first, *rest]] == made[::-1]


def test_a_run_that_does_not_exist_is_named(session):
    with pytest.raises(NotFound, match="There is no run 7"):
        runs.get(session, 7)


def test_a_long_page_takes_as_many_queries_as_a_short_one(house):
    with house.writing.begin() as session:
        for _ in range(20):
            house.create(session, stage="all")
    assert queries(house, limit=20) == queries(house, limit=2) == 10


def queries(house, limit):
    counted = []
    event.listen(house.engine, "before_cursor_execute", count := lambda *given: counted.append(given[2].startswith("SELECT")))
    with house.reading() as session:
        shown = rows.of(session, lists.page(session, limit=limit))
    event.remove(house.engine, "before_cursor_execute", count)
    assert len(shown) == limit
    return sum(counted)


# Status: SQL and RunState agree


OPEN = [(status, silent) for status in JobStatus for silent in ((False, True) if status in ACTIVE else (False,))]
GATE = ("gated", False)
"""No job: the stage's gate is closed."""
JOBS_OF_A_STAGE = [
    [], *([job] for job in OPEN),
    [(JobStatus.failed, False), (JobStatus.running, True)], [(JobStatus.failed, False), (JobStatus.succeeded, False)],
    [(JobStatus.succeeded, False), (JobStatus.failed, False)], [(JobStatus.stopped, False), (JobStatus.queued, False)],
    [GATE], [(JobStatus.succeeded, False), GATE], [(JobStatus.failed, False), GATE],
]  # fmt: skip
"""What a stage can have come to: its jobs, oldest first, each with its status and whether nobody has been heard to work on it."""


def shapes():
    """Every run of one and of two stages, and some of three, also such as no chain can come to."""
    three = list(itertools.product(JOBS_OF_A_STAGE, repeat=3))
    return [*itertools.product(JOBS_OF_A_STAGE), *itertools.product(JOBS_OF_A_STAGE, repeat=2), *random.Random(0).sample(three, 400)]


def insert_runs(session, shaped):
    now = db.now(session)
    for shape in shaped:
        run = Run(name="r", config={}, request_hash="", created_at=now, created_by="ann")
        session.add(run)
        session.flush()
        stages = [StageRun(run_id=run.id, stage=stage, position=position) for position, (stage, _jobs) in enumerate(zip(Stage, shape, strict=False))]
        session.add_all(stages)
        session.flush()
        for stage, jobs in zip(stages, shape, strict=True):
            stage.gated_because = "too high" if GATE in jobs else None
            for status, silent in (each for each in jobs if each != GATE):
                heard = now + timedelta(hours=-1 if silent else 1) if status in ACTIVE else None  # so that no slow machine makes one silent
                session.add(Job(kind="train", run_id=run.id, stage_id=stage.id, status=status, directory="", queued_at=now, heartbeat_at=heard))
                session.flush()


def test_the_filter_and_the_counts_agree_with_the_state_of_every_run(house, session):
    insert_runs(session, shapes())
    session.commit()  # as runs are; counted while nobody could see them, PostgreSQL would take the tables for empty
    if house.engine.dialect.name == "postgresql":
        session.execute(text("ANALYZE"))
    now, everything = db.now(session), lists.page(session, limit=ALL)
    expected = {id_: expected_of(state.current, now) for id_, state in runs.states(session, everything).items()}
    assert len(expected) == len(shapes())
    for status in Shown:
        found = {run.id for run in lists.page(session, Wanted(status=status), limit=ALL)}
        assert found == {id_ for id_, shown in expected.items() if shown == status}, status
        assert found, f"no shape is {status}"
    counted = lists.tally(session)
    assert counted == dict(Counter(expected.values()))
    assert {row.run.id: row.shown for row in rows.of(session, everything)} == expected


def expected_of(current, now):
    return Shown.lost if current.status != "gated" and current.job and states.is_lost(current.job, now) else Shown(current.status)


def test_runs_that_have_ended_come_with_the_latest_end_first(house, session):
    ended = {}
    for name in ("first", "second", "goes-on", "stopped-twice"):
        house.create(session, stage="vision,resampler" if name == "goes-on" else "resampler", name=name)
        job, attempt = house.claim(session)
        ended[name] = (job, attempt)
        move_on(session, job, JobStatus.running, "test", "started")
    for name in ("second", "first"):
        move_on(session, ended[name][0], JobStatus.failed, "test", "exit_code")
    done, attempt = ended["goes-on"]
    saved = house.saved(attempt, 5, "epoch", val_loss=1.0)
    house.tell(session, done, attempt, saved)
    assert finish(session, done.id, attempt.number, JobStatus.succeeded, actor="test", reason="succeeded", best=saved.path)
    again, _attempt = ended["stopped-twice"]
    for new in (JobStatus.stopping, JobStatus.stopped, JobStatus.queued, JobStatus.stopped):
        move_on(session, again, new, "test", "stopped")
    names = {run.id: run.name for run in lists.page(session)}
    assert [names[id_] for id_ in lists.ended(session, 10)] == ["stopped-twice", "first", "second"]
    assert [names[id_] for id_ in lists.ended(session, 1)] == ["stopped-twice"]


# Search


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("LORA", ["b-lora", "Lora_2"]),
        ("_", ["Lora_2"]),
        ("%", []),
        ("2", ["x", "Lora_2"]),
        ("#2", ["x"]),
        (" x ", ["x"]),
        ("99999999999", []),
        ("²", []),
    ],
)
def test_a_search_finds_parts_of_names_in_any_case_and_numbers(house, session, q, found):
    for name in ("b-lora", "x", "Lora_2"):
        house.create(session, name=name)
    assert sorted(run.name for run in lists.page(session, Wanted(q))) == sorted(found)
    assert sum(lists.tally(session, q).values()) == len(found)


def test_newer_runs_of_a_list_are_counted_as_it_is_filtered(house, session):
    old = house.create(session, name="old")
    house.create(session, name="new-lora")
    house.create(session, name="new-base")
    assert lists.newest(session) == old.id + 2
    assert [lists.newer(session, Wanted(q), old.id) for q in ("", "lora", "old")] == [2, 1, 0]
    assert lists.newer(session, Wanted(status=Shown.failed), old.id) == 0


# Order


def with_losses(house, session):
    """Six runs with the val_losses of their stages, in the order in which they were saved."""
    now = db.now(session)
    for name, losses in {"b": [[3.0, 2.0]], "A": [[0.1], [1.5]], "c": [[]], "a2": [[2.0]], "d": [[0.5], []], "e": [[]]}.items():
        run = house.create(session, stage="resampler,finetune", name=name)
        job = session.exec(select(Job).where(Job.run_id == run.id)).one()
        for stage, of_stage in zip(runs.state(session, run).stages, losses, strict=False):
            for step, loss in enumerate(of_stage):
                facts = {"kind": "epoch", "step": step, "epoch": 1, "metrics": {"val_loss": loss}, "val_loss": loss, "sha256": "", "size": 1}
                session.add(
                    Checkpoint(
                        run_id=run.id, stage_id=stage.row.id, job_id=job.id, attempt=1, path=f"{name}-{stage.stage}-{step}", created_at=now, **facts
                    )
                )
    session.flush()


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        (Sort.newest, ["e", "d", "a2", "c", "A", "b"]),
        (Sort.oldest, ["b", "A", "c", "a2", "d", "e"]),
        (Sort.name, ["A", "a2", "b", "c", "d", "e"]),
        (Sort.name_down, ["e", "d", "c", "b", "a2", "A"]),
        (Sort.lowest, ["d", "A", "a2", "b", "e", "c"]),
        (Sort.highest, ["a2", "b", "A", "d", "e", "c"]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 10])
def test_every_order_is_kept_from_page_to_page(house, session, sort, names, limit):
    with_losses(house, session)
    found, cursor = [], None
    while page := lists.page(session, sort=sort, cursor=cursor, limit=limit):
        found += [run.name for run in page]
        cursor = page[-1].id
    assert found == names


def test_what_is_sorted_by_is_what_is_shown(house, session):
    with_losses(house, session)
    shown = {row.run.name: row.best and (row.best.stage, row.best.val_loss) for row in rows.of(session, lists.page(session))}
    resampler, finetune = Stage.resampler, Stage.finetune
    assert shown == {"b": (resampler, 2.0), "A": (finetune, 1.5), "c": None, "a2": (resampler, 2.0), "d": (resampler, 0.5), "e": None}


def test_a_cursor_that_no_page_gave_is_refused_where_it_says_nothing(house, session):
    house.create(session)
    with pytest.raises(Invalid, match="cursor: 7 is not"):
        lists.page(session, sort=Sort.name, cursor=7)


# Rows


def test_the_time_taken_is_that_of_all_attempts_and_not_that_of_waiting(house, session):
    job, attempt = house.running(session)
    begun = attempt.started_at
    attempt.ended_at = begun + timedelta(minutes=10)
    session.add(Attempt(job_id=job.id, number=2, directory="", started_at=begun + timedelta(hours=5)))
    job.heartbeat_at = begun + timedelta(hours=5, minutes=3)
    session.add_all([job, attempt])
    session.flush()
    run = session.get_one(Run, job.run_id)
    assert rows.of(session, [run])[0].took == timedelta(minutes=13)


def test_nobody_says_how_long_a_silent_run_will_take(house, session):
    job, _attempt = house.running(session)
    job.progress = {"done": 5, "total": 8, "eta_seconds": 100.0, "t": db.now(session).timestamp()}
    session.add(job)
    session.flush()
    run = session.get_one(Run, job.run_id)
    assert rows.of(session, [run])[0].progress == "62 %, 2 min left"
    job.heartbeat_at = db.now(session) - timedelta(minutes=1)
    session.add(job)
    session.flush()
    row = rows.of(session, [run])[0]
    assert (row.shown, row.progress, row.words) == (Shown.lost, "62 %", "Resampler without a heartbeat")
