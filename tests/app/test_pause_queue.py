"""A paused queue gives no work away; what is at work goes on."""

from concurrent.futures import ThreadPoolExecutor

from sqlmodel import select

from app.jobs import pauses
from app.jobs import service as jobs
from app.models import Attempt, Job, Worker


def test_nothing_is_taken_from_a_paused_queue_until_it_is_resumed(house, session):
    house.create(session)
    worker = house.worker(session)
    pauses.pause(session, "anna", reason="maintenance")
    assert jobs.claim(session, worker) is None
    assert house.states(session, session.get_one(Job, 1)) == ["queued"]
    assert pauses.resume(session, "anna") == [1]
    assert jobs.claim(session, worker)


def test_one_queue_is_paused_and_the_others_are_not(house, session):
    house.create(session)
    house.create(session, devices=2)
    small, large = house.worker(session, "small"), house.worker(session, "large", devices=2)
    pauses.pause(session, "anna", "x2")
    assert jobs.claim(session, large) is None
    assert jobs.claim(session, small)


def test_a_pause_of_everything_stays_when_one_queue_is_resumed(house, session):
    house.create(session)
    worker = house.worker(session)
    pauses.pause(session, "anna")
    pauses.pause(session, "ben", "x1")
    pauses.resume(session, "ben", "x1")
    assert jobs.claim(session, worker) is None
    assert list(pauses.paused(session)) == ["all"]


def test_what_is_at_work_goes_on_and_the_next_stage_waits(house, session):
    job, attempt = house.running(session)
    pauses.pause(session, "anna")
    assert jobs.heartbeat(session, job.id, attempt.number)
    assert jobs.lose(session, job, "sweep")
    assert jobs.claim(session, house.worker(session, "other")) is None
    assert jobs.why_waiting(session, job).startswith("the queue is paused by anna since ")


def test_a_second_pause_does_not_change_who_paused_it_and_why(house, session):
    pauses.pause(session, "anna", reason="maintenance")
    pauses.pause(session, "ben", reason="no idea")
    assert [(each.actor, each.reason) for each in pauses.paused(session).values()] == [("anna", "maintenance")]


def test_pages_are_told_once_of_each_change(house, session):
    pauses.pause(session, "anna", "x1", "maintenance")
    pauses.pause(session, "ben", "x1")
    pauses.resume(session, "ben", "x1")
    pauses.resume(session, "ben", "x1")
    assert [(each["what"], each["queue"], each["actor"]) for each in house.told(session, "queue")] == [
        ("paused", "x1", "anna"), ("resumed", "x1", "ben"),
    ]  # fmt: skip


def test_two_people_who_pause_at_once_pause_it_once(house):
    def pause(actor):
        with house.writing.begin() as session:
            pauses.pause(session, actor)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pause, ["ann", "ben", "cem", "dan"]))
    with house.writing() as session:
        assert len(pauses.paused(session)) == 1
        assert len(house.told(session, "queue")) == 1


def test_once_a_pause_is_committed_no_claim_that_was_under_way_comes_after_it(house):
    with house.writing.begin() as session:
        for _ in range(6):
            house.create(session)
        workers = [house.worker(session, f"worker-{n}").id for n in range(6)]

    def claim(worker_id):
        with house.writing.begin() as session:
            jobs.claim(session, session.get_one(Worker, worker_id))

    def taken():
        with house.reading() as session:
            return len(session.exec(select(Attempt)).all())

    with ThreadPoolExecutor(6) as pool:
        claims = [pool.submit(claim, worker_id) for worker_id in workers]
        with house.writing.begin() as session:
            pauses.pause(session, "ann")
        at_the_pause = taken()
        for each in claims:
            each.result()
    assert taken() == at_the_pause
