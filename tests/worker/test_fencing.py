"""An attempt that was given to another worker writes nothing more, however much its trainer still says."""

import threading

from app.models import Job
from worker import follow


def test_a_worker_that_was_given_up_kills_its_trainer_and_writes_nothing_more(house, monkeypatch):
    monkeypatch.setattr(follow, "HEARTBEAT_SECONDS", 0.1)
    job_id = house.submit("slow", steps=100_000)
    thread = threading.Thread(target=house.work().take)
    thread.start()
    house.until(lambda: house.stored_points(job_id), "points are stored")
    (trainer,) = house.trainers()
    with house.sessions.writing.begin() as session:  # as if another worker had lost and claimed it
        job = session.get_one(Job, job_id)
        job.attempt, job.worker_id = 2, None
    stored = repr(house.stored_points(job_id)), house.stored_log(job_id)
    thread.join(20)
    assert not thread.is_alive() and not trainer.alive
    assert (repr(house.stored_points(job_id)), house.stored_log(job_id)) == stored
    assert house.states(job_id) == ["queued", "starting", "running"]
