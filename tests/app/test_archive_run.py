"""A run is renamed, gets another priority or a note, and is put out of sight and back."""

import pytest
from sqlmodel import select

from app.errors import Conflict
from app.jobs.finish import finish
from app.models import Job, JobStatus
from app.overview import service as overview
from app.runs import changes, stages
from app.runs.table import lists
from app.runs.table.lists import Shown, Wanted
from panollava.stages import Stage
from tests.app.test_retry_stage import trained


def test_an_archived_run_is_in_no_list_unless_it_is_asked_for(house, session):
    run, other = trained(house, session, "resampler"), trained(house, session, "resampler")
    changes.archive(session, run)
    session.flush()
    assert [each.id for each in lists.page(session)] == [other.id]
    assert [each.id for each in lists.page(session, Wanted(archived=True))] == [run.id]
    assert (lists.tally(session)[Shown.succeeded], lists.tally(session, archived=True)[Shown.succeeded]) == (1, 1)
    assert [row.run.id for row in overview.recent(session)] == [other.id]


def test_the_overview_holds_up_no_failure_of_an_archived_run(house, session):
    job, _attempt = house.running(session)
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="exit_code")
    assert overview.attention(session)[1] == 1
    changes.archive(session, lists.page(session)[0])
    session.flush()
    assert overview.attention(session) == ([], 0)


def test_archived_twice_it_keeps_its_time_and_it_comes_back(house, session):
    run = trained(house, session, "resampler")
    changes.archive(session, run)
    first = run.archived_at
    changes.archive(session, run)
    assert run.archived_at == first is not None
    changes.unarchive(session, run)
    changes.unarchive(session, run)
    assert run.archived_at is None


def test_an_archived_run_that_is_trained_again_is_in_the_lists_again(house, session):
    run = trained(house, session, "resampler")
    changes.archive(session, run)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    assert run.archived_at is None
    assert [each.id for each in lists.page(session)] == [run.id]


def test_a_run_that_waits_or_is_at_work_cannot_be_put_out_of_sight(house, session):
    run = house.create(session)
    with pytest.raises(Conflict, match="has a job that is queued"):
        changes.archive(session, run)


def test_a_new_priority_reaches_the_job_in_the_queue_and_leaves_one_at_work_alone(house, session):
    house.running(session)
    run = house.create(session)
    changes.update(session, run, "ann", priority=5, note="try this first", name="better")
    session.flush()
    assert [job.priority for job in session.exec(select(Job).order_by(Job.id))] == [0, 5]
    assert house.claim(session)[0].run_id == run.id
    changes.update(session, run, "ann", priority=7)
    session.flush()
    assert (run.name, run.note, run.priority, session.exec(select(Job.priority).where(Job.run_id == run.id)).one()) == (
        "better",
        "try this first",
        7,
        5,
    )
