"""People move what waits, and workers take it in just that order."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import col, select

from app.errors import Conflict
from app.jobs import order
from app.jobs import service as jobs
from app.jobs.order import After, Before
from app.models import Job, JobStatus, Run, Transition, Worker
from app.runs import service as runs


def queue(session):
    return [job.id for job in order.waiting(session)]


def move(session, job_id, place=None):
    order.reorder(session, session.get_one(Job, job_id), "ann", place)
    return queue(session)


@pytest.fixture
def four(house, session):
    """Jobs 1 to 4."""
    for _ in range(4):
        house.create(session)
    return session


def test_what_was_queued_first_is_taken_first(four):
    assert queue(four) == [1, 2, 3, 4]


def test_a_job_is_moved_before_and_behind_another_and_to_the_top(four):
    assert move(four, 4, Before(2)) == [1, 4, 2, 3]
    assert move(four, 1, After(3)) == [4, 2, 3, 1]
    assert move(four, 3) == [3, 4, 2, 1]
    assert move(four, 3) == [3, 4, 2, 1]


def test_workers_take_what_was_moved_in_its_new_order_and_pages_say_how_many_are_before_it(house, four):
    worker = house.worker(four)
    move(four, 4)
    assert jobs.why_waiting(four, four.get_one(Job, 4)) == "a worker is free and about to take it"
    assert jobs.why_waiting(four, four.get_one(Job, 1)) == "behind 1 job"
    assert [house.claim(four, worker)[0].id for _ in range(4)] == [4, 1, 2, 3]


def test_a_job_beside_one_of_another_priority_gets_that_one(house, four):
    order.prioritise(four, four.get_one(Job, 3), "ann", 5)
    assert queue(four) == [3, 1, 2, 4]
    assert move(four, 4, Before(3)) == [4, 3, 1, 2]
    assert four.get_one(Job, 4).priority == 5
    assert move(four, 3, After(1)) == [4, 1, 3, 2]
    assert four.get_one(Job, 3).priority == 0


def test_what_is_queued_later_comes_behind_all_that_was_moved(house, four):
    for _ in range(28):  # a number between two others is halved at most 52 times
        move(four, 1, After(queue(four)[-1]))
        move(four, 2, After(queue(four)[-1]))
    house.create(four)
    assert queue(four) == [3, 4, 1, 2, 5]


def test_any_number_of_moves_between_the_same_two_keeps_the_order_right(four):
    expected, chosen = [1, 2, 3, 4], random.Random(0)
    for _ in range(30):
        mover, anchor = chosen.sample(expected, 2)
        place = chosen.choice([Before, After])(anchor)
        expected.remove(mover)
        expected.insert(expected.index(anchor) + isinstance(place, After), mover)
        assert move(four, mover, place) == expected
    first = expected[0]
    for _ in range(55):
        mover = queue(four)[2]
        assert move(four, mover, After(first))[:2] == [first, mover]


def test_jobs_for_other_devices_are_another_queue(house, session):
    house.create(session)
    house.create(session, devices=2)
    house.create(session)
    assert move(session, 3) == [3, 1, 2]
    with pytest.raises(Conflict, match="Job 2 does not wait in the same queue"):
        move(session, 3, Before(2))
    assert move(session, 2) == [3, 1, 2]


def test_a_job_that_was_taken_meanwhile_is_not_moved(house, four):
    seen = four.get_one(Job, 1)
    house.claim(four, house.worker(four))
    with pytest.raises(Conflict, match="Job 1 is starting; only what waits can be moved"):
        order.reorder(four, seen, "ann", After(4))
    with pytest.raises(Conflict, match="Job 1 is starting"):
        order.prioritise(four, seen, "ann", 5)
    with pytest.raises(Conflict, match="Job 1 does not wait in the same queue any more"):
        move(four, 3, Before(1))
    assert queue(four) == [2, 3, 4]


def test_a_new_priority_holds_for_the_later_stages_of_the_run_too(house, session):
    run = house.create(session, stage="vision,resampler")
    order.prioritise(session, session.get_one(Job, 1), "ann", 7)
    assert session.get_one(Run, run.id).priority == 7 and session.get_one(Job, 1).priority == 7


def test_a_move_is_in_the_history_and_told_to_pages(house, four):
    move(four, 4)
    last = four.exec(select(Transition).where(Transition.job_id == 4).order_by(col(Transition.id).desc())).first()
    assert (last.old, last.new, last.actor, last.reason) == ("queued", "queued", "ann", "moved_in_queue")
    assert house.told(four, "job")[-1]["job_id"] == 4


def test_a_job_that_is_queued_again_has_its_old_place(house, four):
    job, _attempt = house.claim(four, house.worker(four))
    jobs.lose(four, job, "sweep")
    assert queue(four) == [1, 2, 3, 4]


def test_people_and_workers_at_once_leave_every_job_taken_once_and_none_moved_after_it(house):
    with house.writing.begin() as session:
        for _ in range(6):
            house.create(session)
        workers = [house.worker(session, f"worker-{n}").id for n in range(6)]

    def claim(worker_id):
        with house.writing.begin() as session:
            return jobs.claim(session, session.get_one(Worker, worker_id)).job_id

    def shuffle(job_id):
        with house.writing() as session:
            try:
                order.reorder(session, session.get_one(Job, job_id), "ann")
                session.commit()
            except Conflict:
                session.rollback()

    with ThreadPoolExecutor(12) as pool:
        moves = [pool.submit(shuffle, job_id) for job_id in range(1, 7)]
        taken = list(pool.map(claim, workers))
        for each in moves:
            each.result()
    assert sorted(taken) == [1, 2, 3, 4, 5, 6]
    with house.writing() as session:
        assert {job.status for job in session.exec(select(Job))} == {JobStatus.starting}
        assert [runs.status(session, run) for run in session.exec(select(Run))] == ["starting"] * 6
