"""The house in figures, as Prometheus reads them, on both databases."""

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import update

from app import db
from app.jobs import pauses
from app.models import Job, Worker
from app.telemetry import service as telemetry
from panollava.events import Metric


def figures(session):
    """Values by name and labels."""
    text = telemetry.exposition(session, CollectorRegistry()).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }  # fmt: skip


def test_queues_have_a_depth_and_an_age_by_class(house, session):
    house.create(session)
    house.create(session)
    house.create(session, devices=2)
    house.worker(session, "large", devices=4)
    session.exec(update(Job).where(Job.id == 1).values(queued_at=db.now(session) - timedelta(minutes=5)))
    pauses.pause(session, "ann", "x2")
    seen = figures(session)
    assert [seen["panollava_queue_jobs", name] for name in ("x1", "x2", "x4")] == [2, 1, 0]
    assert seen["panollava_queue_oldest_seconds", "x1"] >= 300 > seen["panollava_queue_oldest_seconds", "x2"] >= 0
    assert seen["panollava_queue_oldest_seconds", "x4"] == 0
    assert [seen["panollava_queue_paused", name] for name in ("x1", "x2", "x4")] == [0, 1, 0]
    pauses.pause(session, "ann")
    assert figures(session)["panollava_queue_paused", "x4"] == 1


def test_jobs_are_counted_by_the_state_that_pages_show(house, session):
    job, _attempt = house.running(session)
    house.create(session)
    assert figures(session)["panollava_jobs", "train", "running"] == 1
    job.heartbeat_at = db.now(session) - timedelta(minutes=1)
    session.add(job)
    seen = figures(session)
    assert seen["panollava_jobs", "train", "lost"] == seen["panollava_jobs", "train", "queued"] == 1
    assert ("panollava_jobs", "train", "running") not in seen


def test_workers_tell_their_heartbeat_what_they_have_not_brought_in_and_their_points(house, session):
    job, attempt = house.running(session)
    worker = session.get_one(Worker, job.worker_id)
    house.tell(session, job, attempt, *(Metric(step=step, epoch=0.1, values={"a": 1.0, "b": 2.0}) for step in (1, 2, 3)))
    session.exec(update(Worker).values(heartbeat_at=db.now(session) - timedelta(seconds=90), unread=77))
    session.expire_all()
    seen = figures(session)
    assert 90 <= seen["panollava_worker_heartbeat_age_seconds", worker.name] < 150
    assert seen["panollava_ingest_unread_bytes", worker.name] == 77
    assert seen["panollava_metric_points_total", worker.name] == 6


def test_a_worker_that_has_left_is_no_series_any_more(house, session):
    worker = house.worker(session)
    worker.stopped_at = db.now(session)
    session.add(worker)
    assert ("panollava_metric_points_total", "one") not in figures(session)


@pytest.mark.parametrize("name", ['a"b\\c\nd', "ü"])
def test_a_name_with_odd_characters_is_still_read(house, session, name):
    house.worker(session, name)
    assert ("panollava_ingest_unread_bytes", name) in figures(session)


def test_an_empty_house_has_figures_too(house, session):
    assert figures(session) == {}
