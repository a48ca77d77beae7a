"""The list of evaluations, one of them, and the form that asks for another, in a browser without scripts."""

import html
import re

import pytest

from app.evaluations import forms
from app.models import Evaluation, JobStatus
from panollava.events import CheckpointSaved, Progress, StageEvent
from panollava.metrics.captions import Prediction
from panollava.metrics.report import report


def ask(house, name="one", **config):
    values = {"checkpoint": str(house.checkpoint(f"{name}.ckpt")), "csv": house.table} | config
    return house.launch.post("/evaluations", {"config": values, "name": name}).json()["id"]


def succeed(house, work):
    lines = [
        Prediction(url="a.jpg", query="What?", references=["a red cube"], prediction=text, condition=condition, expect={"colour": "red"})
        for condition, text in (("image", "a red cube"), ("blank", "a blue cube"))
    ]
    (work.directory / "predictions.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
    scored = report(lines, {"colour": ["red", "blue"]}).model_copy(update={"chance": {"colour": 0.5}})
    (work.directory / "metrics.json").write_text(scored.model_dump_json())
    work.say(StageEvent(name="evaluate", status="started"))
    work.end(JobStatus.succeeded)


def text_of(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def page_of(house, path):
    answer = house.browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def fields_of(page):
    """What a browser would send: the form's inputs, its chosen option, its ticked boxes."""
    form = re.search(r'<form class="card ask".*?</form>', page, re.DOTALL)[0]
    inputs = re.findall(r'<input (?![^>]*type="checkbox")[^>]*?name="(\w+)" value="(.*?)"', form)
    chosen = re.findall(r'<select [^>]*name="(\w+)".*?<option value="([^"]*)" selected', form, re.DOTALL)
    ticked = re.findall(r'type="checkbox" name="(\w+)" value="(\w+)" checked', form)
    return {name: html.unescape(value) for name, value in (*inputs, *chosen)} | {name: [v for n, v in ticked if n == name] for name, _ in ticked}


# The list and one of them


def test_a_house_without_evaluations_says_what_to_do(house):
    assert "No evaluations yet. Evaluate a checkpoint" in text_of(page_of(house, "/evals"))


def test_the_list_shows_headline_figures_and_boxes_for_those_that_can_be_compared(house):
    first = ask(house)
    succeed(house, house.claim())
    second = ask(house, "two")
    page = page_of(house, "/evals")
    assert re.findall(r'name="ids" value="(\d+)"', page) == [str(first)]
    assert re.search(r"two Queued a worker is free and about to take it .* one Succeeded train\.csv 1 0\.000 1\.000 colour 1\.000", text_of(page))
    assert f'href="/evals/{second}"' in page and 'action="/evals/compare"' in page


def test_rows_are_sent_alone_for_live_updates(house):
    ask(house)
    piece = page_of(house, "/evals?part=rows")
    assert "<html" not in piece and "Queued" in piece and "every 5s" in piece
    house.claim().end(JobStatus.failed, detail="no")
    assert "every 5s" not in page_of(house, "/evals?part=rows")


def test_the_list_goes_on_where_a_page_ends(house):
    ids = [ask(house, f"number{n}") for n in range(51)]
    page = page_of(house, "/evals")
    assert f"/evals?cursor={ids[1]}" in page and "number0" not in page
    assert "number0" in page_of(house, f"/evals?cursor={ids[1]}")


def test_an_evaluation_at_work_shows_how_far_it_is_and_one_that_is_silent_says_so(house):
    evaluation = ask(house)
    work = house.claim()
    work.say(StageEvent(name="evaluate", status="started"), Progress(done=40, total=160, unit="answers", eta_seconds=90))
    page = text_of(page_of(house, f"/evals/{evaluation}"))
    assert "Running" in page and "40 of 160 answers · 2 min left" in page


def test_an_evaluation_that_failed_says_why(house):
    evaluation = ask(house)
    house.claim().end(JobStatus.failed, detail="CUDA out of memory.")
    assert "CUDA out of memory." in page_of(house, f"/evals/{evaluation}?part=now")


def test_an_evaluation_shows_the_controls_beside_the_image_and_chance_beside_both(house):
    evaluation = ask(house, controls=["blank"])
    succeed(house, house.claim())
    page = page_of(house, f"/evals/{evaluation}")
    assert "Shown to the model the image blank chance" in text_of(page)
    assert re.search(r"BLEU-1 1\.000 ±0\.000 0\.667 ±0\.000", text_of(page))
    assert "colour n 1 1.000 ±0.000 0.000 ±0.000 0.500" in text_of(page)
    assert "blank: same answer 0.000 ±0.000" in text_of(page) and "image − blank: colour +1.000 ±0.000" in text_of(page)
    assert "CIDEr n 1: too few to mean much" in text_of(page)
    assert f'href="/evals/compare?ids={evaluation}"' in page
    assert re.search(r"controls blank", text_of(page))


def test_an_evaluation_that_is_not_there_is_not_found(quiet_house):
    assert quiet_house.browser.get("/evals/99").status_code == 404


# The form


def test_the_form_has_the_schema_s_defaults_and_descriptions(house):
    page = page_of(house, "/evals/new")
    fields = fields_of(page)
    assert (fields["max_new_tokens"], fields["batch_size"], fields["limit"], fields["csv"]) == ("64", "32", "", "")
    assert "Longest answer, in tokens." in page and len(fields["request_key"]) > 20


def test_a_checkpoint_s_form_is_filled_with_it_and_with_the_table_beside_its_run_s(house):
    house.submit()
    work = house.claim()
    house.checkpoint(str((work.directory / "best.ckpt").relative_to(house.settings.home)))
    work.say(CheckpointSaved(path="best.ckpt", kind="best", step=1200, epoch=1, sha256="0", size=7, metrics={"val_loss": 1.25}))
    (house.settings.home / "test.csv").write_text("url,query,annotation\na.jpg,What?,This.\n")
    page = page_of(house, "/evals/new?checkpoint=1")
    assert "best of resampler, run 1 (vlm), step 1,200, val_loss 1.250" in page
    fields = fields_of(page)
    assert (fields["checkpoint_id"], fields["csv"]) == ("1", str(house.settings.home / "test.csv"))
    answer = house.browser.post("/evals/new", data=fields | {"controls": ["blank", "rolled"]})
    assert answer.url.path == "/evals/1" and "resampler@1200 of run 1 on test" in answer.text
    made = house.read.get("/evaluations/1").json()
    assert (made["checkpoint_id"], made["run_id"], made["config"]["controls"], made["status"]) == (1, 1, ["blank", "rolled"], "queued")


def test_the_best_checkpoints_are_offered_first_and_the_one_asked_for_always(house, monkeypatch):
    monkeypatch.setattr(forms, "OFFERED", 6)
    for stages, kinds in (("resampler", ("epoch", "best", "final")), ("vision", ("best",)), ("resampler", ("best", "epoch", "last", "step"))):
        house.submit(stage=stages)
        work = house.claim()
        for step, kind in enumerate(kinds):
            work.say(CheckpointSaved(path=f"{kind}.ckpt", kind=kind, step=step, epoch=1, sha256="0", size=7))
        work.end(JobStatus.succeeded)
    best_first = ["best of resampler, run 3", "best of resampler, run 1", "last of resampler, run 3", "final of resampler, run 1"]
    steps = ["step of resampler, run 3", "epoch of resampler, run 3"]
    assert offered(page_of(house, "/evals/new")) == best_first + steps
    assert offered(page_of(house, "/evals/new?checkpoint=1")) == ["epoch of resampler, run 1", *best_first, steps[0]]


def offered(page):
    return re.findall(r'<option value="\d+"[^>]*>(\w+ of \w+, run \d+)', page)


def test_the_same_form_sent_twice_asks_once(house):
    fields = fields_of(page_of(house, "/evals/new")) | {"checkpoint": str(house.checkpoint("x.ckpt")), "csv": house.table}
    first, second = (house.browser.post("/evals/new", data=fields) for _ in range(2))
    assert first.url.path == second.url.path == "/evals/1"
    assert house.count(Evaluation) == 1


def test_a_form_that_was_changed_after_it_was_sent_gets_a_key_of_its_own(house):
    fields = fields_of(page_of(house, "/evals/new")) | {"checkpoint": str(house.checkpoint("x.ckpt")), "csv": house.table}
    house.browser.post("/evals/new", data=fields)
    refused = house.browser.post("/evals/new", data=fields | {"max_new_tokens": "5"})
    assert refused.status_code == 409 and "<li>The key " in refused.text and "asked for something else" in refused.text
    assert house.browser.post("/evals/new", data=fields_of(refused.text)).url.path == "/evals/2"


@pytest.mark.parametrize(
    ("field", "value", "status", "says"),
    [
        ("max_new_tokens", "many", 422, "Input should be a valid integer"),
        ("batch_size", "0", 422, "Input should be greater than or equal to 1"),
        ("csv", "", 422, "Field required"),
        ("csv", "/etc/passwd", 403, "lies outside the directories open to users"),
        ("csv", "nowhere.csv", 422, "No such file"),
        ("checkpoint", "nowhere.ckpt", 422, "there is no such checkpoint"),
        ("checkpoint", "", 422, "Field required"),
        ("controls", ["loud"], 422, ""),
    ],
)
def test_what_is_wrong_is_shown_at_its_field_with_the_rest_as_it_was(house, field, value, status, says):
    if isinstance(value, str) and value.startswith("nowhere"):
        value = str(house.settings.home / value)
    good = {"checkpoint": str(house.checkpoint("x.ckpt")), "csv": house.table, "name": "mine", "controls": ["blank"], "request_key": "k"}
    answer = house.browser.post("/evals/new", data=good | {field: value})
    assert answer.status_code == status
    wrong = re.search(rf'<p class="wrong" id="{field}-wrong">(.*?)</p>', answer.text)
    assert wrong and says in html.unescape(wrong[1])
    assert fields_of(answer.text)["name"] == "mine"
    assert house.count(Evaluation) == 0


def test_who_may_only_read_cannot_ask_for_an_evaluation(quiet_house):
    answer = quiet_house.client.post("/evals/new", data={}, headers={"Authorization": f"Bearer {quiet_house.read.token}"})
    assert answer.status_code == 403
