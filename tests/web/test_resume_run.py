from app.models import JobStatus
from panollava.events import StageEvent


def test_a_failed_run_says_why_and_goes_on_when_it_is_resumed(house):
    run = house.submit()
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"))
    work.end(JobStatus.failed, detail="The loss was NaN.")
    failed = house.read.get(f"/runs/{run['id']}").json()
    assert (failed["status"], failed["stages"][0]["detail"]) == ("failed", "The loss was NaN.")

    resumed = house.launch.post(f"/runs/{run['id']}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    assert house.claim().directory.name == "attempt-2"


def test_a_run_that_is_queued_already_cannot_be_resumed_and_says_what_it_waits_for(house):
    run = house.submit()
    answer = house.launch.post(f"/runs/{run['id']}/resume")
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(f"Run {run['id']} is queued already: stage resampler")
