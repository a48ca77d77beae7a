"""Once a newer attempt exists, an older one writes nothing: each kind of write that a worker makes."""

import pytest
from sqlmodel import select

from app import ingest
from app.events import service as events
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Attempt, Checkpoint, Job, JobStatus, LogChunk, MetricSeries, Sample
from panollava.events import CheckpointRemoved, Metric, Note, Progress, StageEvent
from panollava.events import Sample as Answer


@pytest.fixture
def zombie(house, session):
    """A job in its second attempt, and the first one, which does not know of it."""
    job, old = house.running(session)
    house.tell(session, job, old, house.saved(old, 7))
    jobs.lose(session, job, "sweep")
    house.claim(session)
    session.refresh(job)
    return job, old


def everything(session) -> list:
    """What the database holds of jobs, attempts and what trainers said, and what the streams are to be told."""
    session.flush()
    session.expire_all()
    rows = [row.model_dump() for table in (Job, Attempt, Checkpoint, LogChunk, MetricSeries, Sample) for row in session.exec(select(table))]
    return rows + list(session.info.get("events", []))


SAID = {
    "metric": Metric(step=8, epoch=1, values={"train_loss": 1.0}),
    "progress": Progress(done=8, total=10, unit="steps"),
    "sample": Answer(step=8, url="a.jpg", query="What?", references=["this"], prediction="that"),
    "stage": StageEvent(name="resampler", status="started"),
    "note": Note(level="info", text="still here"),
    "removed": CheckpointRemoved(path="checkpoints/step=000007.ckpt"),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_its_trainer_says_is_refused(house, session, zombie, kind):
    before = everything(session)
    assert not house.tell(session, *zombie, SAID[kind])
    assert everything(session) == before


def test_its_checkpoints_are_refused(house, session, zombie):
    job, old = zombie
    saved = house.saved(old, 8)
    before = everything(session)
    assert not house.tell(session, job, old, saved)
    assert everything(session) == before


def test_its_log_is_refused(session, zombie):
    before = everything(session)
    assert not ingest.log(session, *zombie, b"step 8\n")
    assert everything(session) == before


def test_a_word_of_its_worker_is_refused(session, zombie):
    job, old = zombie
    before = everything(session)
    assert not events.note(session, job.id, old.number, "info", "Downloading s3://bucket/best.ckpt.")
    assert everything(session) == before
    assert events.note(session, job.id, job.attempt, "info", "Downloading s3://bucket/best.ckpt.")
    assert everything(session) != before


def test_its_heartbeat_is_refused(session, zombie):
    before = everything(session)
    assert not jobs.heartbeat(session, zombie[0].id, zombie[1].number, {"done": 8})
    assert everything(session) == before


@pytest.mark.parametrize("status", [JobStatus.succeeded, JobStatus.failed, JobStatus.stopped, JobStatus.lost])
def test_its_end_is_refused(session, zombie, status):
    before = everything(session)
    assert not finish(session, zombie[0].id, zombie[1].number, status, actor="zombie", reason="whatever")
    assert everything(session) == before


def test_it_may_not_take_a_persons_wish_for_a_checkpoint(session, zombie):
    job, old = zombie
    jobs.request_save(session, job, "ann")
    before = everything(session)
    assert not jobs.take_save(session, job.id, old.number)
    assert everything(session) == before


def test_it_is_not_adopted(house, session, zombie):
    job, old = zombie
    before, other = everything(session), house.worker(session, "other")
    assert not jobs.adopt(session, job, old.number, old.worker_id, other)
    assert everything(session) == before


def test_what_another_worker_has_adopted_is_not_adopted_again(house, session):
    job, attempt = house.running(session)
    left_by, second, third = attempt.worker_id, house.worker(session, "second"), house.worker(session, "third")
    assert jobs.adopt(session, job, attempt.number, left_by, second)
    assert not jobs.adopt(session, job, attempt.number, left_by, third)
    assert (job.worker_id, attempt.worker_id, job.attempt) == (second.id, second.id, 1)
