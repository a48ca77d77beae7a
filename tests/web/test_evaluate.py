"""Ask for an evaluation, read its answers, set two side by side."""

import pytest

from app.models import Evaluation, JobStatus
from panollava.events import CheckpointSaved, StageEvent
from panollava.metrics.captions import Prediction
from panollava.metrics.report import report


def ask(house, name="one", **more):
    config = {"checkpoint": str(house.checkpoint(f"{name}.ckpt")), "csv": house.table, "controls": ["blank"]}
    return house.launch.post("/evaluations", {"config": config, "name": name} | more)


def answered(house, name, prediction):
    """An evaluation that has succeeded: each of ten questions was answered with this word, or with nothing where the image was blank."""
    evaluation = ask(house, name).json()
    work = house.claim()
    answers = [
        Prediction(url=f"{number}.jpg", query="What is there?", references=["a red cube"], prediction=text, condition=condition)
        for number in range(10) for condition, text in (("image", prediction), ("blank", ""))
    ]  # fmt: skip
    (work.directory / "predictions.jsonl").write_text("".join(answer.model_dump_json() + "\n" for answer in answers))
    (work.directory / "metrics.json").write_text(report(answers).model_dump_json())
    work.say(StageEvent(name="evaluate", status="started"))
    work.end(JobStatus.succeeded)
    return evaluation["id"]


def test_an_evaluation_is_queued_and_says_why_it_waits(house):
    answer = ask(house)
    evaluation = answer.json()
    assert (answer.status_code, evaluation["status"], evaluation["name"]) == (201, "queued", "one")
    assert evaluation["waiting_because"] == "needs 1 device; no worker serves x1"
    assert evaluation["config"]["controls"] == ["blank"]
    assert house.read.get(f"/evaluations/{evaluation['id']}").json() == evaluation
    assert house.read.get("/evaluations").json()["items"] == [evaluation]


def test_an_evaluation_of_a_run_s_checkpoint_belongs_to_the_run(house):
    run = house.submit()
    work = house.claim()
    checkpoint = work.directory / "best.ckpt"
    house.checkpoint(str(checkpoint.relative_to(house.settings.home)))
    work.say(CheckpointSaved(path="best.ckpt", kind="best", step=1, epoch=1, sha256="0", size=7))
    checkpoint_id = house.read.get(f"/runs/{run['id']}/checkpoints").json()["items"][0]["id"]
    evaluation = house.launch.post("/evaluations", {"checkpoint_id": checkpoint_id, "config": {"csv": house.table}}).json()
    assert (evaluation["run_id"], evaluation["checkpoint_id"], evaluation["config"]["checkpoint"]) == (run["id"], checkpoint_id, str(checkpoint))
    assert house.read.get("/evaluations", run_id=run["id"]).json()["items"] == [evaluation]


def test_answers_are_read_page_by_page_and_by_condition(house):
    evaluation = answered(house, "one", "a red cube")
    shown = house.read.get(f"/evaluations/{evaluation}").json()
    assert shown["status"] == "succeeded" and shown["metrics"]["captions"]["image"]["bleu_1"] == pytest.approx(1)
    first = house.read.get(f"/evaluations/{evaluation}/predictions", limit=7, condition="image").json()
    second = house.read.get(f"/evaluations/{evaluation}/predictions", limit=7, condition="image", cursor=first["next_cursor"]).json()
    assert [each["url"] for each in first["items"] + second["items"]] == [f"{number}.jpg" for number in range(10)]
    assert second["next_cursor"] is None


def test_a_cursor_that_no_page_gave_is_refused(house):
    evaluation = answered(house, "one", "a red cube")
    answer = house.read.get(f"/evaluations/{evaluation}/predictions", cursor=3)
    assert (answer.status_code, answer.json()["detail"]) == (422, "cursor: 3 is not the `next_cursor` of a page.")


def test_an_evaluation_without_answers_yet_says_so(house):
    evaluation = ask(house).json()["id"]
    for answer in (house.read.get(f"/evaluations/{evaluation}/predictions"), house.read.get("/comparisons", ids=f"{evaluation},{evaluation}")):
        assert (answer.status_code, answer.json()["detail"]) == (409, f"Evaluation {evaluation} has no predictions yet.")


def test_two_evaluations_are_compared_with_the_named_one_as_base(house):
    right, wrong = answered(house, "right", "a red cube"), answered(house, "wrong", "a blue cube")
    comparison = house.read.get("/comparisons", ids=f"{right},{wrong}", base=wrong).json()
    assert [each["label"] for each in comparison["evaluations"]] == ["right", "wrong"]
    assert (comparison["base"], comparison["questions"]) == (1, 10)
    assert comparison["evaluations"][0]["metrics"]["bleu_1"]["difference"]["value"] > 0


@pytest.mark.parametrize(
    ("ids", "more", "status", "detail"),
    [
        ("1,99", {}, 404, "There is no evaluation 99."),
        ("1", {}, 422, "A comparison needs two evaluations or more; this is 1."),
        ("1,1", {"base": 5}, 422, "base: evaluation 5 is not among those compared."),
        ("one", {}, 422, "ids: String should match pattern"),
    ],
)
def test_a_comparison_that_cannot_be_made_says_why(house, ids, more, status, detail):
    answered(house, "one", "a red cube")
    answer = house.read.get("/comparisons", ids=ids, **more)
    assert answer.status_code == status and answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"config": {"csv": "x.csv", "checkpoint": "y", "beams": 3}}, 422, "beams: there is no such setting."),
        ({"config": {"csv": "x.csv"}}, 422, "checkpoint: Field required"),
        ({"config": {"csv": "x.csv"}, "checkpoint_id": 99}, 404, "There is no checkpoint 99."),
        ({"config": {"csv": "/etc/passwd", "checkpoint": "/etc/passwd"}}, 403, "checkpoint: /etc/passwd lies outside"),
        ({}, 422, "config: Field required."),
    ],
)
def test_a_request_that_cannot_work_is_refused_with_what_is_wrong(quiet_house, request_, status, detail):
    answer = quiet_house.launch.post("/evaluations", request_)
    assert answer.status_code == status and answer.json()["detail"].startswith(detail)
    assert quiet_house.count(Evaluation) == 0
