from panollava.events import StageEvent


def test_a_queued_run_is_stopped_at_once(house):
    run = house.submit()
    answer = house.launch.post(f"/runs/{run['id']}/stop")
    assert (answer.status_code, answer.json()["status"]) == (202, "stopped")


def test_a_run_at_work_is_asked_to_stop_and_asking_again_changes_nothing(house):
    run = house.submit()
    house.claim().say(StageEvent(name="resampler", status="started"))
    assert house.read.get(f"/runs/{run['id']}").json()["status"] == "running"
    for _ in range(2):
        answer = house.launch.post(f"/runs/{run['id']}/stop")
        assert (answer.status_code, answer.json()["status"]) == (202, "stopping")
    timeline = house.read.get(f"/runs/{run['id']}/timeline").json()
    assert [(each["new"], each["actor"]) for each in timeline] == [
        ("queued", "token:test-launch"), ("starting", "x1"), ("running", "trainer"), ("stopping", "token:test-launch"),
    ]  # fmt: skip


def test_a_run_that_has_ended_cannot_be_stopped(house):
    run = house.submit()
    house.launch.post(f"/runs/{run['id']}/stop")
    answer = house.launch.post(f"/runs/{run['id']}/stop")
    assert (answer.status_code, answer.json()["detail"]) == (409, f"Run {run['id']} has stopped; there is nothing to stop.")


def test_a_checkpoint_can_be_asked_for_while_it_runs_and_only_then(house):
    run = house.submit()
    assert house.launch.post(f"/runs/{run['id']}/save").status_code == 409
    house.claim().say(StageEvent(name="resampler", status="started"))
    assert house.launch.post(f"/runs/{run['id']}/save").status_code == 202
