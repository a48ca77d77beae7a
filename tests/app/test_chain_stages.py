"""A stage succeeds, and the next one starts from its best checkpoint."""

from pathlib import Path

import pytest
from sqlmodel import select

from app.checkpoints import service as checkpoints
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Attempt, Checkpoint, Job, JobStatus, StageRun, Transition
from app.runs import service as runs
from panollava import rundir
from panollava.events import StageEvent


def succeed(house, session, job, attempt, **more):
    """The attempt saves twice, calls the first one its best, and ends well."""
    best = house.saved(attempt, 5, "epoch", "epoch=00-val_loss=1.000.ckpt", val_loss=1.0)
    house.tell(session, job, attempt, best, house.saved(attempt, 9, "last", "last.ckpt"))
    return finish(session, job.id, attempt.number, JobStatus.succeeded, actor="one", reason="succeeded", exit_code=0, **{"best": best.path} | more)


def test_the_chain_runs_to_its_end_from_best_to_best(house, session):
    run = house.create(session, stage="all")
    started_from = []
    for stage in ("vision", "resampler", "finetune"):
        assert runs.state(session, run).current.stage == stage
        job, attempt = house.claim(session)
        house.tell(session, job, attempt, StageEvent(name=stage, status="started"))
        started_from.append(session.get_one(StageRun, job.stage_id).init_checkpoint)
        assert succeed(house, session, job, attempt)
    assert runs.status(session, run) == "succeeded"
    best = session.exec(select(Checkpoint.path).where(Checkpoint.kind == "epoch").order_by(Checkpoint.id)).all()
    assert started_from == [None, *best[:-1]]
    rows = session.exec(select(StageRun).order_by(StageRun.position)).all()
    assert [session.get_one(Checkpoint, row.best_checkpoint_id).path for row in rows] == list(best)
    assert jobs.claim(session, house.worker(session)) is None


def test_the_next_stage_is_queued_in_the_transaction_that_ends_the_one_before(house):
    with house.writing() as session:
        job, attempt = house.running(session, stage="resampler,finetune")
        session.commit()
        succeed(house, session, job, attempt)
        session.rollback()
    with house.reading() as session:
        assert session.exec(select(Job.status)).all() == [JobStatus.running]
    with house.writing.begin() as session:
        succeed(house, session, session.get_one(Job, 1), session.get_one(Attempt, 1))
    with house.reading() as session:
        assert session.exec(select(Job.status).order_by(Job.id)).all() == [JobStatus.succeeded, JobStatus.queued]


def test_the_streams_hear_of_the_end_before_they_hear_of_the_next_stage(house, session):
    job, attempt = house.running(session, stage="resampler,finetune")
    succeed(house, session, job, attempt)
    assert [(each["stage"], each["status"]) for each in house.told(session, "job")][-2:] == [("resampler", "succeeded"), ("finetune", "queued")]


def test_a_fenced_attempt_ends_nothing(house, session):
    job, attempt = house.running(session, stage="resampler,finetune")
    best = house.saved(attempt, 5, "epoch")
    house.tell(session, job, attempt, best)
    jobs.lose(session, job, "sweep")
    ending = {"actor": "zombie", "reason": "succeeded", "best": best.path}
    assert not finish(session, job.id, 1, JobStatus.succeeded, **ending)
    house.claim(session)
    assert not finish(session, job.id, 1, JobStatus.succeeded, **ending)
    assert len(session.exec(select(Job)).all()) == 1


def test_ending_twice_is_ending_once(house, session):
    job, attempt = house.running(session, stage="resampler,finetune")
    assert succeed(house, session, job, attempt)
    assert not finish(session, job.id, 1, JobStatus.failed, actor="one", reason="late")
    assert [each.status for each in session.exec(select(Job).order_by(Job.id))] == ["succeeded", "queued"]


def torn(path):
    path.write_bytes(b"half")


def outside(path):
    rundir.link_whole(path, path.parents[4] / "outside.ckpt")


@pytest.mark.parametrize(
    ("harm", "best", "says"),
    [
        (lambda path: path.unlink(), "checkpoints/best.ckpt", "there is no such checkpoint"),
        (lambda path: rundir.note_path(path).unlink(), "checkpoints/best.ckpt", "is missing beside it"),
        (torn, "checkpoints/best.ckpt", "torn"),
        (outside, "../../../outside.ckpt", "lies outside"),
        (lambda path: None, None, "named no best checkpoint"),
    ],
)
def test_a_success_without_a_whole_best_checkpoint_is_a_failure_that_says_so(house, session, harm, best, says):
    job, attempt = house.running(session, stage="resampler,finetune")
    house.tell(session, job, attempt, house.saved(attempt, 5, "best", "best.ckpt"))
    harm(Path(attempt.directory, "checkpoints", "best.ckpt"))
    assert finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded", best=best)
    assert (job.status, job.reason) == ("failed", "no_result")
    assert says in job.detail
    assert len(session.exec(select(Job)).all()) == 1


def test_the_best_checkpoint_may_be_of_the_attempt_that_was_continued(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 5, "epoch", "epoch.ckpt"))
    jobs.lose(session, job, "sweep")
    house.claim(session)
    house.tell(session, job, jobs.attempt_of(session, job), StageEvent(name="resampler", status="resumed", step=5))
    assert finish(session, job.id, 2, JobStatus.succeeded, actor="one", reason="succeeded", best="../attempt-1/checkpoints/epoch.ckpt")
    stage = session.get_one(StageRun, job.stage_id)
    assert session.get_one(Checkpoint, stage.best_checkpoint_id).attempt == 1


def test_a_best_checkpoint_that_no_event_told_of_is_found_by_its_note(house, session):
    job, attempt = house.running(session)
    best = house.saved(attempt, 5, "epoch", "epoch.ckpt", val_loss=0.25)
    assert finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    found = checkpoints.get(session, session.get_one(StageRun, job.stage_id).best_checkpoint_id)
    assert (found.step, found.metrics) == (5, {"val_loss": 0.25})


@pytest.mark.parametrize(("end", "way"), [("succeeded", ["starting", "running", "succeeded"]), ("stopped", ["starting", "stopping", "stopped"])])
def test_a_trainer_too_quick_to_be_seen_running_still_goes_the_whole_way(house, session, end, way):
    house.create(session)
    job, attempt = house.claim(session)
    best = house.saved(attempt, 1, "epoch")
    finish(session, job.id, 1, JobStatus(end), actor="one", reason=end, best=best.path)
    assert house.states(session, job)[-3:] == way


def test_the_end_is_kept_with_its_cause_and_its_exit_code(house, session):
    job, attempt = house.running(session)
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="signal", detail="killed\0 by SIGKILL", exit_code=-9)
    assert (job.reason, job.detail) == ("signal", "killed\ufffd by SIGKILL")
    assert job.finished_at is not None
    assert (attempt.exit_code, attempt.ended_at is not None) == (-9, True)
    last = session.exec(select(Transition).order_by(Transition.id.desc())).first()
    assert (last.actor, last.reason) == ("one", "signal")
