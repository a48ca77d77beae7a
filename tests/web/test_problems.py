"""What bad input gets: a problem document that names what is wrong and where, and nothing queued."""

import logging

import pytest
from sqlalchemy import text

from app.models import Evaluation, Job, Run


def refused(house, status, answer):
    """The problem document of an answer that refused and left nothing behind."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), problem
    assert problem["instance"] == answer.request.url.path
    assert [house.count(table) for table in (Run, Job, Evaluation)] == [0, 0, 0]
    return problem


def launch(house, **config):
    return house.launch.post("/runs", {"config": {"csv_train": house.table, "csv_val": house.table} | config})


def test_an_unknown_config_key_is_named(quiet_house):
    problem = refused(quiet_house, 422, launch(quiet_house, stages={"vision": {"learning_rate": 1}}))
    assert problem["errors"] == [{"field": "stages.vision.learning_rate", "message": "there is no such setting."}]


def test_a_negative_batch_size_is_named_with_its_bound(quiet_house):
    problem = refused(quiet_house, 422, launch(quiet_house, stages={"finetune": {"batch_size": -4}}))
    assert problem["errors"] == [{"field": "stages.finetune.batch_size", "message": "Input should be greater than or equal to 1 (got -4)."}]


def test_two_wrong_fields_are_both_named(quiet_house):
    problem = refused(quiet_house, 422, launch(quiet_house, fov=-1, seed="x"))
    assert [each["field"] for each in problem["errors"]] == ["fov", "seed"]


def test_a_missing_csv_is_named(quiet_house):
    missing = str(quiet_house.settings.home / "nowhere.csv")
    assert missing in refused(quiet_house, 422, launch(quiet_house, csv_train=missing))["detail"]


def test_a_csv_without_annotation_is_named_with_its_column(quiet_house):
    bare = quiet_house.settings.home / "bare.csv"
    bare.write_text("url,query\na.jpg,What?\n")
    detail = refused(quiet_house, 422, launch(quiet_house, csv_train=str(bare)))["detail"]
    assert detail.startswith(f"csv_train: {bare}:1:annotation: the column is missing")


def test_a_csv_outside_the_roots_is_refused_also_behind_a_link(quiet_house, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "train.csv"
    outside.write_text("url,query,annotation\na.jpg,What?,This.\n")
    link = quiet_house.settings.home / "link.csv"
    link.symlink_to(outside)
    assert str(outside) in refused(quiet_house, 403, launch(quiet_house, csv_train=str(link)))["detail"]


def test_a_checkpoint_of_another_architecture_is_named_with_what_differs(quiet_house):
    checkpoint = quiet_house.checkpoint("other.ckpt", pool=4)
    config = {"csv_train": quiet_house.table, "csv_val": quiet_house.table, "stage": "resampler", "init_from": str(checkpoint)}
    answer = quiet_house.launch.post("/runs", {"preset": "demo", "config": config})
    detail = refused(quiet_house, 422, answer)["detail"]
    assert detail.startswith(f"init_from: {checkpoint}: made with another architecture: ") and "pool is 4 there and 2 here" in detail


def test_an_unknown_stage_is_named_beside_those_that_exist(quiet_house):
    problem = refused(quiet_house, 422, launch(quiet_house, stage="polish"))
    assert problem["errors"][0]["field"] == "stage"
    assert "no stage is called 'polish'; the stages are vision, resampler, finetune, or all" in problem["detail"]


def test_an_unknown_preset_is_named_beside_those_that_exist(quiet_house):
    answer = quiet_house.launch.post("/runs", {"preset": "huge"})
    assert "there is no preset 'huge'; there are demo" in refused(quiet_house, 422, answer)["detail"]


def test_an_unknown_field_of_the_request_is_named(quiet_house):
    problem = refused(quiet_house, 422, quiet_house.launch.post("/runs", {"konfig": {}}))
    assert [each["field"] for each in problem["errors"]] == ["konfig"]


def test_a_body_that_is_no_json_says_so(quiet_house):
    answer = quiet_house.launch.request("POST", "/runs", content=b"{")
    assert refused(quiet_house, 422, answer)["detail"]


@pytest.mark.parametrize("path", ["", "/stages", "/checkpoints", "/metrics", "/logs", "/events", "/timeline"])
def test_a_run_that_does_not_exist_is_named(quiet_house, path):
    problem = refused(quiet_house, 404, quiet_house.read.get(f"/runs/99{path}"))
    assert (problem["title"], problem["detail"]) == ("Not Found", "There is no run 99.")


@pytest.mark.parametrize("verb", ["stop", "save", "resume"])
def test_a_run_that_does_not_exist_cannot_be_told_anything(quiet_house, verb):
    assert refused(quiet_house, 404, quiet_house.launch.post(f"/runs/99/{verb}"))["detail"] == "There is no run 99."


def test_a_path_that_does_not_exist_is_a_problem_too(quiet_house):
    refused(quiet_house, 404, quiet_house.read.get("/nothing"))
    refused(quiet_house, 405, quiet_house.launch.delete("/runs"))


def test_a_defect_is_found_in_the_log_by_the_number_in_the_answer(house, caplog):
    house.app.add_api_route("/broken", lambda: 1 / 0)
    with caplog.at_level(logging.ERROR):
        answer = house.client.get("/broken")
    problem = refused(house, 500, answer)
    number = problem["detail"].split()[-1].rstrip(".")
    record = next(each for each in caplog.records if number in each.getMessage())
    assert "ZeroDivisionError" in str(record.exc_info)
    assert "ZeroDivisionError" not in answer.text


def test_a_database_without_its_tables_is_a_503(house):
    with house.writing.begin() as session:
        session.execute(text("ALTER TABLE run RENAME TO gone"))
    answer = house.read.get("/runs")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_away")


@pytest.mark.parametrize("path", ["/api/v1/runs/{n}", "/api/v1/runs?cursor={n}", "/runs/{n}", "/evals/new?checkpoint={n}", "/checkpoints?run={n}"])
def test_a_number_that_no_database_holds_is_the_requests_fault(house, path):
    answer = house.browser.get(path.format(n=10**20))
    assert answer.status_code in (404, 422), answer.text
    assert "defect" not in answer.text
