from datetime import timedelta

from sqlmodel import update

from app import db
from app.models import Worker
from panollava.events import StageEvent


def test_the_queue_has_what_is_at_work_then_what_waits_in_its_order(house):
    first, later = house.submit(), house.submit()
    urgent = house.launch.post("/runs", {"config": {"csv_train": house.table, "csv_val": house.table}, "priority": 5}).json()
    work = house.claim()
    work.say(StageEvent(name="vision", status="started"))
    queue = house.read.get("/queue").json()
    assert [each["run_id"] for each in queue] == [urgent["id"], first["id"], later["id"]]
    assert [each["status"] for each in queue] == ["running", "queued", "queued"]
    assert [each["waiting_because"] for each in queue] == [None, f"the only x1 worker runs run {urgent['id']}", "behind 1 job"]
    assert (queue[0]["stage"], queue[0]["is_lost"]) == ("vision", False)


def test_workers_are_listed_with_what_they_are_at_and_whether_they_live(house):
    house.submit()
    work = house.claim()
    worker = house.read.get("/workers").json()[0]
    assert (worker["name"], worker["devices"], worker["is_alive"], worker["job_id"]) == ("x1", ["0"], True, work.job_id)
    with house.writing.begin() as session:
        session.exec(update(Worker).values(heartbeat_at=db.now(session) - timedelta(seconds=31)))
    assert house.read.get("/workers").json()[0]["is_alive"] is False
