def test_a_run_is_queued_with_its_stages_and_says_why_it_waits(house):
    run = house.submit(stage="all")
    assert run["status"] == "queued"
    assert [(stage["stage"], stage["status"]) for stage in run["stages"]] == [("vision", "queued"), ("resampler", "waiting"), ("finetune", "waiting")]
    assert run["stages"][0]["waiting_because"] == "needs 1 device; no worker serves x1"
    assert run["created_by"] == "token:test-launch"
    assert house.read.get(f"/runs/{run['id']}").json() == run
