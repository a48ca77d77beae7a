"""The Samples section of a run's page and its API: what the model answered, and the panoramas it was asked about."""

import html
import io
import re

import pytest
from PIL import Image

from app.models import JobStatus
from panollava.events import CheckpointSaved, Sample, StageEvent


@pytest.fixture
def asked(house):
    """A run at work that has answered two questions twice, one about a file that can be shown."""
    Image.linear_gradient("L").resize((640, 320)).convert("RGB").save(house.settings.home / "a.png")
    (house.settings.home / "outside.jpg").symlink_to("/etc/hostname")
    run = house.submit(stage="resampler")
    work = house.claim()
    work.say(StageEvent(name="resampler", status="started"), *answers(10, "a cat"), *answers(20, "a <b>red</b> ball & more"))
    return run["id"], work


def answers(step, text):
    about = [("a.png", "What is <i>here</i>?"), ("outside.jpg", "Where?")]
    return [Sample(step=step, url=url, query=query, references=["a red ball", "it's red"], prediction=text) for url, query in about]


def text(source):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())


def look(house, run_id, query):
    answer = house.browser.get(f"/runs/{run_id}?{query}")
    assert answer.status_code == 200, answer.text
    return answer.text


def test_each_question_has_a_card_with_its_answers_newest_first(house, asked):
    page = look(house, asked[0], "tab=samples")
    first = text(page[page.index('id="samples"') :])
    assert first.index("What is <i>here</i>?") < first.index("resampler@20") < first.index("resampler@10") < first.index("Where?")
    assert "a <b>red</b> ball & more" in html.unescape(re.sub(r"<[^>]+>", "", page)), "an answer is text, whatever it looks like"
    assert '<span class="extra">' in page and '<span class="missing">' in page
    assert 'src="/api/v1/runs/1/samples/image?url=a.png&amp;width=480" alt="Panorama a.png"' in page
    assert re.search(r'aria-current="page">Samples<span class="n">2<', page)


def test_the_piece_is_asked_for_when_an_answer_comes(house, asked):
    run_id, work = asked
    piece = look(house, run_id, "tab=samples&part=samples")
    assert piece.count("<html") == 0 and f"live-sample-{run_id} from:body" in piece
    work.say(*answers(30, "a red ball"))
    assert "resampler@30" in look(house, run_id, "tab=samples&part=samples")


def test_the_newest_few_are_shown_and_all_of_them_when_asked(house, asked):
    run_id, work = asked
    for step in range(30, 90, 10):
        work.say(*answers(step, "a ball"))
    page = look(house, run_id, "tab=samples")
    assert "resampler@40" in page and "resampler@30" not in page
    assert f'href="/runs/{run_id}?tab=samples&amp;all=1"' in page
    assert "resampler@10" in look(house, run_id, "tab=samples&all=1")


def test_a_stage_is_shown_alone_when_asked_for(house):
    run = house.submit(stage="resampler,finetune")
    for stage in ("resampler", "finetune"):
        work = house.claim()
        work.say(StageEvent(name=stage, status="started"), *answers(10, f"of {stage}"))
        if stage == "resampler":
            path = work.directory / "best.ckpt"
            path.parent.mkdir(parents=True, exist_ok=True)
            house.checkpoint(str(path.relative_to(house.settings.home)))
            work.say(CheckpointSaved(path="best.ckpt", kind="best", step=10, epoch=1, sha256="0", size=7, metrics={}))
            work.end(JobStatus.succeeded, best="best.ckpt")
    both, one = (look(house, run["id"], f"tab=samples&part=samples{more}") for more in ("", "&stage=resampler"))
    assert "finetune@10" in both and "resampler@10" in both
    assert "resampler@10" in one and "finetune@10" not in one


@pytest.mark.parametrize(
    ("stage", "wanted", "says"),
    [
        ("resampler", 6, "None yet."),
        ("resampler", 0, "This run answers none: example_predictions is 0."),
        ("vision", 6, "Stage vision answers no questions"),
    ],
)
def test_a_run_without_samples_says_why(house, stage, wanted, says):
    run = house.submit(stage=stage, example_predictions=wanted)
    assert says in text(look(house, run["id"], "tab=samples"))


def test_the_api_lists_them_newest_first_by_cursor(house, asked):
    first = house.read.get("/runs/1/samples", limit=3).json()
    assert [(each["step"], each["url"]) for each in first["items"]] == [(20, "outside.jpg"), (20, "a.png"), (10, "outside.jpg")]
    second = house.read.get("/runs/1/samples", limit=3, cursor=first["next_cursor"]).json()
    assert [(each["step"], each["stage"], each["prediction"]) for each in second["items"]] == [(10, "resampler", "a cat")]
    assert second["next_cursor"] is None
    assert house.read.get("/runs/1/samples", stage="finetune").json()["items"] == []
    assert house.read.get("/runs/2/samples").status_code == 404


def test_a_panorama_is_shown_if_a_sample_is_about_it_and_it_lies_below_the_roots(house, asked):
    def get(url):
        return house.read.get("/runs/1/samples/image", url=url, width=160)

    assert Image.open(io.BytesIO(get("a.png").content)).size == (160, 80)
    assert get("outside.jpg").status_code == 403
    assert get("train.csv").status_code == 404
    (house.settings.home / "a.png").unlink()
    assert get("a.png").status_code == 422
