"""A person trains one stage of a run again, or goes on with one that has failed; what was trained from it is stale."""

import threading

import pytest
from sqlmodel import select

from app.checkpoints import service as checkpoints
from app.errors import Conflict, NotFound
from app.jobs import queue
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.metrics import service as metrics
from app.models import Checkpoint, Job, JobStatus, Run, StageRun
from app.runs import service as runs
from app.runs import stages
from app.runs.table import lists
from app.runs.table import rows as list_rows
from panollava.events import Metric, StageEvent
from panollava.stages import Stage

BOTH = "resampler,finetune"


def train(house, session, val_loss=1.0):
    """A worker takes the best queued job and brings it to a good end."""
    job, attempt = house.claim(session)
    best = house.saved(attempt, 5, "epoch", f"epoch=00-val_loss={val_loss}.ckpt", val_loss=val_loss)
    house.tell(session, job, attempt, StageEvent(name="stage", status="started"), best, house.saved(attempt, 9, "last", "last.ckpt"))
    assert finish(session, job.id, attempt.number, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    return job, attempt


def trained(house, session, stage=BOTH, **more):
    """A run whose stages have all succeeded."""
    run = house.create(session, stage=stage, **more)
    for _stage in run.config["stage"]:
        train(house, session)
    assert runs.status(session, run) == "succeeded"
    return run


def rows(session, run):
    return session.exec(select(StageRun).where(StageRun.run_id == run.id).order_by(StageRun.position).execution_options(populate_existing=True)).all()


def stale(session, run):
    return [row.stage for row in rows(session, run) if row.stale_at]


def test_a_stage_that_succeeded_is_trained_again_from_its_start_as_a_new_attempt(house, session):
    run = trained(house, session, "resampler")
    stages.retry_stage(session, run, Stage.resampler, "ann")
    job, attempt = house.claim(session)
    assert (attempt.number, attempt.resumed_step, job.resume_from) == (2, 0, None)
    assert house.states(session, job) == ["queued", "starting", "running", "succeeded", "queued", "starting"]


def test_the_new_training_never_goes_on_from_a_checkpoint_of_the_old_one(house, session):
    run = trained(house, session, "resampler")
    stages.retry_stage(session, run, Stage.resampler, "ann")
    job, attempt = house.claim(session)
    jobs.lose(session, job, "sweep")
    assert (job.status, job.resume_from) == ("queued", None)
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 3))
    jobs.lose(session, job, "sweep")
    assert job.resume_from == f"{attempt.directory}/checkpoints/step=000003.ckpt"


def test_what_was_trained_from_a_stage_is_stale_and_says_since_when_and_why(house, session):
    run = trained(house, session, "all")
    stages.retry_stage(session, run, Stage.vision, "ann")
    assert stale(session, run) == ["resampler", "finetune"]
    first = rows(session, run)[1]
    assert (first.stale_because, first.stale_at is not None) == ("vision of run 1 was begun again", True)
    told = [(each["stage"], each["new"], each["actor"]) for each in queue.timeline(session, run.id) if each["job_id"] is None]
    assert told == [("resampler", "stale", "ann"), ("finetune", "stale", "ann")]


def test_a_stale_stage_stays_as_it_is_until_a_person_trains_it_again_from_the_new_weights(house, session):
    run = trained(house, session)
    old = rows(session, run)[1].init_checkpoint
    stages.retry_stage(session, run, Stage.resampler, "ann")
    _job, attempt = train(house, session, 0.5)
    assert runs.status(session, run) == "succeeded"
    assert stale(session, run) == ["finetune"]
    stages.retry_stage(session, run, Stage.finetune, "ann")
    assert stale(session, run) == []
    new = rows(session, run)[1].init_checkpoint
    assert new != old and new.startswith(attempt.directory)


def test_trained_from_a_stage_that_is_stale_itself_a_stage_stays_stale(house, session):
    run = trained(house, session, "all")
    stages.retry_stage(session, run, Stage.vision, "ann")
    train(house, session)
    stages.retry_stage(session, run, Stage.finetune, "ann")
    assert stale(session, run) == ["resampler", "finetune"]


def test_a_later_stage_that_had_failed_begins_again_with_the_new_weights(house, session):
    run = house.create(session, stage=BOTH)
    train(house, session)
    failed, attempt = house.claim(session)
    house.tell(session, failed, attempt, house.saved(attempt, 7))
    finish(session, failed.id, 1, JobStatus.failed, actor="one", reason="Diverged")
    stages.retry_stage(session, run, Stage.resampler, "ann")
    train(house, session, 0.5)
    assert (failed.status, failed.resume_from, stale(session, run)) == ("queued", None, [])
    train(house, session)
    assert runs.status(session, run) == "succeeded"


def test_a_stage_that_failed_goes_on_from_its_last_good_checkpoint_and_the_one_before_is_left_alone(house, session):
    run = house.create(session, stage=BOTH)
    done, _attempt = train(house, session)
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="exit_code")
    stages.retry(session, run, "ann")
    assert job.resume_from.endswith("step=000007.ckpt")
    assert (done.status, done.attempt) == ("succeeded", 1)


def test_a_stage_that_failed_can_be_begun_again_instead(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7))
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="Diverged")
    stages.retry_stage(session, runs.get(session, job.run_id), Stage.resampler, "ann", from_start=True)
    assert (job.status, job.resume_from, job.begun_after) == ("queued", None, 1)


def test_pressed_twice_it_is_trained_once(house, session):
    run = trained(house, session, "resampler")
    stages.retry_stage(session, run, Stage.resampler, "ann")
    with pytest.raises(Conflict, match="Stage resampler of run 1 is queued already"):
        stages.retry_stage(session, run, Stage.resampler, "bob")


def test_a_stage_is_not_trained_again_under_one_that_is_at_work(house, session):
    run = house.create(session, stage=BOTH)
    train(house, session)
    with pytest.raises(Conflict, match="Stage finetune of run 1 is queued; stop it before resampler is trained again"):
        stages.retry_stage(session, run, Stage.resampler, "ann")
    assert stale(session, run) == []


def test_a_later_stage_waits_for_the_one_that_is_trained_again(house, session):
    run = trained(house, session)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    with pytest.raises(Conflict, match="Stage finetune of run 1 starts from resampler, which is queued"):
        stages.retry_stage(session, run, Stage.finetune, "ann")


def test_a_run_that_has_succeeded_asks_which_stage(house, session):
    with pytest.raises(Conflict, match="name the stage"):
        stages.retry(session, trained(house, session), "ann")


def test_a_stage_that_the_run_does_not_have_is_named(house, session):
    with pytest.raises(NotFound, match="Run 1 has no stage vision"):
        stages.retry_stage(session, trained(house, session, "resampler"), Stage.vision, "ann")


def test_a_best_checkpoint_that_is_gone_cannot_start_the_next_stage_again(house, session):
    run = trained(house, session)
    session.delete(session.get_one(Checkpoint, rows(session, run)[0].best_checkpoint_id))
    session.flush()
    session.expire_all()
    with pytest.raises(Conflict, match="The best checkpoint of resampler of run 1 is gone"):
        stages.retry_stage(session, run, Stage.finetune, "ann")


def test_a_chain_that_is_stopped_while_it_is_trained_again_is_resumed_where_it_was(house, session):
    run = trained(house, session)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 4))
    runs.stop(session, run, "ann")
    finish(session, job.id, 2, JobStatus.stopped, actor="one", reason="stopped")
    runs.resume(session, run, "ann")
    assert checkpoints.last_good(session, job).attempt == 2
    assert job.resume_from.endswith("attempt-2/checkpoints/step=000004.ckpt")


def test_charts_and_lists_show_the_new_training_only(house, session):
    run = house.create(session)
    job, attempt = house.claim(session)
    best = house.saved(attempt, 5, "epoch", "old.ckpt", val_loss=0.1)
    house.tell(
        session,
        job,
        attempt,
        StageEvent(name="resampler", status="started"),
        *(Metric(step=n, epoch=0, values={"train_loss": 9.0}) for n in (1, 2, 3)),
        best,
    )
    finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 1, "epoch", "new.ckpt", val_loss=0.7), Metric(step=1, epoch=0, values={"train_loss": 1.0}))
    drawn = [line for line in metrics.query(session, run.id, ["train_loss"], smooth=0.9) if len(line.buckets)]
    assert [(line.attempt, line.buckets["last"].tolist(), line.ema.values.tolist()) for line in drawn] == [(2, [1.0], [1.0])]
    assert list_rows.of(session, [run])[0].best.val_loss == 0.7
    other = house.create(session)
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 1, "epoch", "other.ckpt", val_loss=0.5))
    assert [each.id for each in lists.page(session, sort=lists.Sort.lowest)] == [other.id, run.id]


def test_of_two_who_press_at_the_same_moment_one_trains_it_again(house):
    with house.writing.begin() as session:
        run = trained(house, session, "resampler")
    told = []

    def press(name):
        try:
            with house.writing.begin() as session:
                stages.retry_stage(session, session.get_one(Run, run.id), Stage.resampler, name)
            told.append("queued")
        except Conflict as error:
            told.append(str(error))

    threads = [threading.Thread(target=press, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["Stage resampler of run 1 is queued already.", "queued"]
    with house.reading() as session:
        assert house.states(session, session.exec(select(Job)).one()).count("queued") == 2
