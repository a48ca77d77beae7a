from app.models import Job, Run
from panollava.presets import PRESETS


def test_a_run_is_queued_with_its_stages_and_says_why_it_waits(house):
    run = house.submit(stage="all")
    assert run["status"] == "queued"
    assert [(stage["stage"], stage["status"]) for stage in run["stages"]] == [("vision", "queued"), ("resampler", "waiting"), ("finetune", "waiting")]
    assert run["stages"][0]["waiting_because"] == "needs 1 device; no worker serves x1"
    assert run["created_by"] == "token:test-launch"
    assert house.read.get(f"/runs/{run['id']}").json() == run
    assert house.read.get(f"/runs/{run['id']}/stages").json() == run["stages"]


def test_a_preset_goes_under_what_the_request_sets(house):
    config = {"csv_train": house.table, "csv_val": house.table, "stages": {"vision": {"epochs": 7}}}
    run = house.launch.post("/runs", {"preset": "demo", "config": config}).json()
    vision = run["config"]["stages"]["vision"]
    assert (vision["epochs"], vision["lr"]) == (7, PRESETS["demo"]["stages"]["vision"]["lr"])


def test_the_server_s_panollava_toml_goes_under_the_preset(house, tmp_path, monkeypatch):
    (tmp_path / "panollava.toml").write_text('name = "mine"\nresampler_width = 7\n')
    monkeypatch.chdir(tmp_path)
    run = house.launch.post("/runs", {"preset": "demo", "config": {"csv_train": house.table, "csv_val": house.table}}).json()
    assert (run["name"], run["config"]["resampler_width"]) == ("mine", PRESETS["demo"]["resampler_width"])


def test_the_same_request_sent_twice_makes_one_run(house):
    body = {"config": {"csv_train": house.table, "csv_val": house.table}, "request_key": "mine"}
    first, second = house.launch.post("/runs", body).json(), house.launch.post("/runs", body).json()
    assert first["id"] == second["id"]
    assert (house.count(Run), house.count(Job)) == (1, 1)


def test_a_key_that_was_used_for_another_request_is_a_conflict(house):
    body = {"config": {"csv_train": house.table, "csv_val": house.table}, "request_key": "mine"}
    house.launch.post("/runs", body)
    answer = house.launch.post("/runs", body | {"priority": 5})
    assert (answer.status_code, answer.json()["title"]) == (409, "Conflict")
    assert house.count(Run) == 1


def test_runs_are_listed_page_by_page_newest_first(house):
    made = [house.submit(name=name)["id"] for name in ("one", "two", "three")]
    first = house.read.get("/runs", limit=2).json()
    second = house.read.get("/runs", limit=2, cursor=first["next_cursor"]).json()
    assert [run["id"] for run in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    assert "config" not in first["items"][0] and first["items"][0]["stages"][0]["status"] == "queued"
