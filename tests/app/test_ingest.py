"""What a trainer wrote becomes rows: each line once, in order, and only while its attempt owns the job."""

import math

import pytest
from sqlmodel import select

from app import ingest
from app.jobs import service as jobs
from app.metrics import service as metrics
from app.models import Attempt, Checkpoint, Job, JobStatus
from panollava.events import CheckpointRemoved, Metric, Note, Progress, Sample, StageEvent, encode


def step(number, **values):
    return Metric(step=number, epoch=0.0, values=values or {"train_loss": float(number)})


def values(session, job):
    return [bucket["last"].item() for line in metrics.query(session, job.run_id) for bucket in line.buckets]


def test_the_same_bytes_are_applied_once(house, session):
    job, attempt = house.running(session)
    lines = encode(step(1)) + encode(step(2))
    before = attempt.event_offset
    assert ingest.events(session, job, attempt, lines)
    assert attempt.event_offset == before + len(lines)
    assert values(session, job) == [1.0, 2.0]


def test_of_two_processes_that_have_read_the_same_bytes_one_stores_them(house):
    with house.writing.begin() as session:
        job, attempt = house.running(session)
    slow = house.writing()
    late = slow.get_one(Job, job.id), slow.get_one(Attempt, attempt.id)
    slow.commit()
    with house.writing.begin() as session:
        house.tell(session, session.get_one(Job, job.id), session.get_one(Attempt, attempt.id), step(1), step(2))
    with slow:
        assert house.tell(slow, *late, step(1), step(2))
        slow.commit()
        assert values(slow, job) == [1.0, 2.0]


def test_a_torn_line_is_refused_by_whoever_reads_files(house, session):
    job, attempt = house.running(session)
    with pytest.raises(ValueError, match="torn"):
        ingest.events(session, job, attempt, encode(step(1))[:-1])


def test_nothing_at_all_is_no_news(house, session):
    job, attempt = house.running(session)
    assert ingest.events(session, job, attempt, b"")


def test_lines_and_offset_are_stored_together_or_not_at_all(house):
    with house.writing() as session:
        job, attempt = house.running(session)
        session.commit()
        before = attempt.event_offset
        house.tell(session, job, attempt, step(1))
        session.rollback()
        assert session.get_one(Attempt, attempt.id).event_offset == before
        assert values(session, job) == []


def test_the_first_word_of_a_trainer_makes_the_job_running(house, session):
    house.create(session)
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, StageEvent(name="resampler", status="started"))
    assert job.status is JobStatus.running
    assert house.states(session, job)[-1] == "running"


def test_a_job_that_was_told_to_stop_stays_so(house, session):
    house.create(session)
    job, attempt = house.claim(session)
    jobs.request_stop(session, job, "ann")
    house.tell(session, job, attempt, StageEvent(name="resampler", status="started"))
    assert job.status is JobStatus.stopping


def test_where_a_trainer_really_resumed_is_what_counts(house, session):
    house.create(session)
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, StageEvent(name="resampler", status="resumed", step=17))
    assert attempt.resumed_step == 17


def test_a_trainers_last_word_does_not_end_the_job(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, StageEvent(name="resampler", status="succeeded", best="checkpoints/best.ckpt"))
    assert job.status is JobStatus.running


def test_points_of_a_batch_are_told_together(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, step(1, train_loss=2.0, lr=0.5), step(2, train_loss=math.nan))
    (told,) = house.told(session, "metric")
    assert (told["job_id"], told["attempt"], told["stage"], told["reload"]) == (job.id, 1, "resampler", False)
    assert {name: [(at, value) for at, _t, value in points] for name, points in told["points"].items()} == {
        "train_loss": [(1, 2.0), (2, "NaN")], "lr": [(1, 0.5)],
    }  # fmt: skip
    assert math.isnan(values(session, job)[-1])


def test_streams_are_not_flooded_while_catching_up(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, *map(step, range(1, 3000)))
    (told,) = house.told(session, "metric")
    assert told["reload"] and told["points"] == {}
    assert [line.points for line in metrics.query(session, job.run_id)] == [2999]


def test_the_last_progress_of_a_batch_is_the_jobs(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, Progress(done=1, total=10, unit="steps"), Progress(done=2, total=10, unit="steps", eta_seconds=4.0))
    assert (job.progress["done"], job.progress["eta_seconds"]) == (2, 4.0)
    assert [each["done"] for each in house.told(session, "progress")] == [2]


def test_a_step_checkpoint_that_made_room_is_no_row_any_more(house, session):
    job, attempt = house.running(session)
    old, new = house.saved(attempt, 5), house.saved(attempt, 8)
    house.tell(session, job, attempt, old, new, CheckpointRemoved(path=old.path), CheckpointRemoved(path="../../../else.ckpt"))
    assert [row.step for row in session.exec(select(Checkpoint))] == [8]


def test_a_checkpoint_becomes_a_row_and_stays_one_when_it_is_written_again(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 5, "last", "last.ckpt", val_loss=math.nan))
    house.tell(session, job, attempt, house.saved(attempt, 8, "last", "last.ckpt", val_loss=0.5))
    (row,) = session.exec(select(Checkpoint)).all()
    assert (row.step, row.kind, row.metrics, row.attempt, row.run_id) == (8, "last", {"val_loss": 0.5}, 1, job.run_id)
    assert row.path == f"{attempt.directory}/checkpoints/last.ckpt"
    told = house.told(session, "checkpoint")
    assert [(each["checkpoint_id"], each["step"], each["metrics"]["val_loss"]) for each in told] == [(row.id, 5, "NaN"), (row.id, 8, 0.5)]


def test_samples_and_notes_are_told_as_they_are(house, session):
    job, attempt = house.running(session)
    sample = Sample(step=3, url="a.jpg", query="What?", references=["This."], prediction="That.")
    house.tell(session, job, attempt, sample, Note(level="warning", text="The loss is NaN."))
    assert [(each["prediction"], each["step"]) for each in house.told(session, "sample")] == [("That.", 3)]
    assert [each["text"] for each in house.told(session, "note")] == ["The loss is NaN."]


@pytest.mark.parametrize(
    "line",
    [
        b"Traceback (most recent call last):\n",
        b"\n",
        b'{"type": "metric"}\n',
        b'{"type": "unheard of"}\n',
        b"\xff\xfe\n",
        b'{"t":1,"type":"metric","step":99999999999999999999,"epoch":0,"values":{}}\n',
        b'{"t":1,"type":"metric","step":4294967296,"epoch":0,"values":{"train_loss":1}}\n',
        b'{"t":1,"type":"note","level":"info","text":"\\u0000"}\n',
        b'{"t":1,"type":"checkpoint","path":"../../../else.ckpt","kind":"last","step":1,"epoch":0,"sha256":"","size":1}\n',
        b'{"t":1,"type":"checkpoint","path":"/etc/passwd","kind":"last","step":1,"epoch":0,"sha256":"","size":1}\n',
    ],
)
def test_a_line_that_is_no_event_is_noted_and_blocks_nothing(house, session, line):
    job, attempt = house.running(session)
    before = attempt.event_offset
    first, last = encode(step(1)), encode(step(2))
    assert ingest.events(session, job, attempt, first + line + last)
    assert attempt.event_offset == before + len(first + line + last)
    assert values(session, job) == [1.0, 2.0]
    (note,) = house.told(session, "note")
    assert (note["level"], note["offset"]) == ("warning", before + len(first))
    assert f"byte {before + len(first)}" in note["text"]


def test_a_fenced_attempt_writes_nothing(house, session):
    job, attempt = house.running(session)
    jobs.lose(session, job, "sweep")
    before = attempt.event_offset
    assert not house.tell(session, job, attempt, step(1), house.saved(attempt, 1))
    assert not ingest.log(session, job, attempt, b"still here")
    house.claim(session)
    assert not house.tell(session, job, attempt, step(1))
    assert values(session, job) == [] and session.exec(select(Checkpoint)).all() == []
    assert (attempt.event_offset, attempt.log_offset) == (before, 0)
    assert house.told(session, "metric") == house.told(session, "log") == []


def test_progress_and_log_of_one_round_are_both_kept(house, session):
    job, attempt = house.running(session)
    job_id = job.id
    session.commit()
    with house.writing.begin() as one:
        job, attempt = one.get_one(Job, job_id, with_for_update=True), one.get_one(Attempt, attempt.id)
        assert ingest.events(one, job, attempt, encode(step(2)) + encode(Progress(done=2, total=2, unit="steps")))
        assert ingest.log(one, job, attempt, b"done\n")
    with house.writing.begin() as after:
        assert after.get_one(Job, job_id).progress["done"] == 2
