"""A stage that ran out of memory is tried again with the settings that its trainer suggested."""

import pytest
from sqlmodel import select

from app.errors import Conflict
from app.jobs.finish import finish
from app.models import JobStatus, StageRun
from app.runs import service as runs
from app.runs import stages
from panollava.config import RunConfig
from panollava.events import StageEvent
from panollava.shortage import goes_on
from panollava.stages import Stage


def run_out(house, session, suggestion):
    """A run of one stage whose trainer has begun, run out of memory, and said what would need less."""
    run = house.create(session, stage="resampler")
    job, attempt = house.claim(session)
    said = {"step": 3, "reason": "out_of_memory", "detail": "Out of memory.", "suggestion": suggestion}
    house.tell(session, job, attempt, StageEvent(name="resampler", status="started"), StageEvent(name="resampler", status="failed", **said))
    assert finish(session, job.id, attempt.number, JobStatus.failed, actor="one", reason="out_of_memory", detail="Out of memory.", exit_code=1)
    return run, job


def test_it_goes_on_with_twice_the_accumulation_and_pressing_twice_is_a_conflict(house, session):
    run, job = run_out(house, session, {"accumulation": 2})
    stages.retry_lighter(session, run, Stage.resampler, "ann")
    stage = session.exec(select(StageRun).where(StageRun.run_id == run.id)).one()
    assert stage.overrides == {"accumulation": 2}
    session.refresh(job)
    assert job.status is JobStatus.queued
    asked = RunConfig.model_validate(run.config)
    ours = asked.overridden(Stage.resampler, stage.overrides)
    assert ours.stages.resampler.accumulation == 2
    assert ours.stages.finetune == asked.stages.finetune
    with pytest.raises(Conflict):
        stages.retry_lighter(session, run, Stage.resampler, "ann")


def test_where_nothing_that_leaves_the_model_as_it_is_was_suggested_it_says_so(house, session):
    run, _job = run_out(house, session, {"pool": 4})
    assert stages.suggested(session, runs.state(session, run).current) == {}
    with pytest.raises(Conflict, match="Nothing is known with which stage resampler"):
        stages.retry_lighter(session, run, Stage.resampler, "ann")


def test_a_smaller_batch_begins_the_stage_again_and_so_do_smaller_micro_batches_of_an_overlap_loss():
    config = RunConfig()
    assert goes_on(config, Stage.resampler, {"accumulation": 2})
    assert not goes_on(config, Stage.vision, {"accumulation": 2})
    assert not goes_on(config, Stage.resampler, {"batch_size": 8})
    assert goes_on(config, Stage.vision, {"gradient_checkpointing": True})
