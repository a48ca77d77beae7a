"""What can be asked of a run can be asked of one stage of it, by its name: refused where the run is at another one."""

import pytest
from sqlmodel import select

from app.errors import Conflict, Invalid, NotFound
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Checkpoint, Job, JobStatus
from app.runs import copies, stages
from app.runs import service as runs
from panollava.stages import Stage
from tests.app.test_retry_stage import BOTH, rows, train, trained


def statuses(session, run):
    return [each.status for each in runs.state(session, run).stages]


@pytest.fixture
def run(house, session):
    """At its second stage, which is queued."""
    run = house.create(session, stage=BOTH)
    train(house, session)
    return run


def test_the_stage_that_is_queued_is_stopped_by_its_name_and_resumed_by_it(house, session, run):
    stages.stop_stage(session, run, Stage.finetune, "ann")
    assert statuses(session, run) == ["succeeded", "stopped"]
    stages.resume_stage(session, run, Stage.finetune, "ann")
    assert statuses(session, run) == ["succeeded", "queued"]


def test_the_stage_at_work_is_asked_to_save_and_to_stop(house, session, run):
    job, _attempt = house.claim(session)
    stages.save_stage(session, run, Stage.finetune, "ann")
    assert jobs.take_save(session, job.id, job.attempt)
    stages.stop_stage(session, run, Stage.finetune, "ann")
    assert statuses(session, run) == ["succeeded", "stopping"]


def test_another_stage_than_that_at_work_is_refused_with_the_one_that_is(house, session):
    run = house.create(session, stage=BOTH)
    at = r"The run is at stage resampler, which is queued\."
    with pytest.raises(Conflict, match=rf"Stage finetune of run 1 is waiting; there is nothing to stop\. {at}"):
        stages.stop_stage(session, run, Stage.finetune, "ann")
    with pytest.raises(Conflict, match=rf"Stage finetune of run 1 is waiting; there is nothing to save\. {at}"):
        stages.save_stage(session, run, Stage.finetune, "ann")
    assert statuses(session, run) == ["queued", "waiting"]


def test_a_stop_that_comes_after_the_stage_has_ended_does_not_stop_the_next(house, session, run):
    with pytest.raises(Conflict, match="Stage resampler of run 1 is succeeded; there is nothing to stop"):
        stages.stop_stage(session, run, Stage.resampler, "ann")
    assert statuses(session, run) == ["succeeded", "queued"]


def test_what_waits_in_the_queue_cannot_save(house, session, run):
    with pytest.raises(Conflict, match="Stage finetune of run 1 is queued; there is nothing to save"):
        stages.save_stage(session, run, Stage.finetune, "ann")


def test_a_resume_trains_nothing_again_that_has_succeeded(house, session):
    run = trained(house, session)
    with pytest.raises(Conflict, match=r"finetune of run 1 has succeeded; there is nothing to resume\. A retry trains it again"):
        stages.resume_stage(session, run, Stage.finetune, "ann")
    assert runs.status(session, run) == "succeeded"


def test_a_resume_goes_on_from_the_last_good_checkpoint(house, session, run):
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    finish(session, job.id, attempt.number, JobStatus.failed, actor="one", reason="failed")
    stages.resume_stage(session, run, Stage.finetune, "ann")
    assert job.resume_from.endswith("step=000007.ckpt")


@pytest.mark.parametrize("verb", [stages.stop_stage, stages.save_stage, stages.resume_stage])
def test_a_stage_that_the_run_has_not_is_not_found(house, session, run, verb):
    with pytest.raises(NotFound, match="Run 1 has no stage vision"):
        verb(session, run, Stage.vision, "ann")


# new runs


def best(session, run, stage):
    return session.get_one(Checkpoint, rows(session, run)[stage].best_checkpoint_id)


def test_a_fork_of_a_stage_starts_from_its_best_checkpoint_or_from_one_of_its_own(house, session):
    run = trained(house, session)
    made = copies.fork(session, run, {}, house.settings, "ann", of=Stage.resampler)
    assert (made.config["stage"], rows(session, made)[0].init_checkpoint) == (["finetune"], best(session, run, 0).path)
    last = session.exec(select(Checkpoint).where(Checkpoint.kind == "last", Checkpoint.stage_id == rows(session, run)[0].id)).one()
    made = copies.fork(session, run, {}, house.settings, "ann", checkpoint_id=last.id, of=Stage.resampler)
    assert rows(session, made)[0].init_checkpoint == last.path
    with pytest.raises(NotFound, match="is of stage resampler, not of stage finetune"):
        copies.fork(session, run, {}, house.settings, "ann", checkpoint_id=last.id, of=Stage.finetune)


def test_a_fork_of_a_stage_that_has_nothing_to_give_is_refused(house, session, run):
    with pytest.raises(NotFound, match="Stage finetune of run 1 has no best checkpoint yet"):
        copies.fork(session, run, {}, house.settings, "ann", of=Stage.finetune)


def test_a_clone_of_a_stage_trains_it_alone_from_the_weights_that_it_began_with(house, session):
    run = trained(house, session)
    made = copies.clone_stage(session, run, Stage.finetune, {"seed": 4}, house.settings, "ann", request_key="k")
    assert (made.config["stage"], made.config["seed"], made.parent_id) == (["finetune"], 4, run.id)
    assert rows(session, made)[0].init_checkpoint == best(session, run, 0).path
    assert copies.clone_stage(session, run, Stage.finetune, {"seed": 4}, house.settings, "ann", request_key="k").id == made.id
    first = copies.clone_stage(session, run, Stage.resampler, {}, house.settings, "ann")
    assert (first.config["stage"], rows(session, first)[0].init_checkpoint) == (["resampler"], None)


def test_a_stage_that_was_given_no_weights_yet_cannot_be_cloned_nor_another_stage_in_its_name(house, session):
    run = house.create(session, stage=BOTH)
    with pytest.raises(Conflict, match="Stage finetune of run 1 has not begun: no weights have been handed over to it yet"):
        copies.clone_stage(session, run, Stage.finetune, {}, house.settings, "ann")
    with pytest.raises(Invalid, match=r"config\.stage: the clone of one stage has its stage"):
        copies.clone_stage(session, run, Stage.resampler, {"stage": "vision"}, house.settings, "ann")
    assert len(session.exec(select(Job)).all()) == 1
