"""Evaluations side by side in a browser without scripts: everything is in the page, and every state is a link."""

import html
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from app.models import JobStatus
from panollava import rundir
from panollava.config import RunConfig
from panollava.events import StageEvent
from panollava.metrics.captions import Prediction
from panollava.metrics.report import report

FIGURES = {"colour": ["red", "green", "blue"]}
COLOURS = ["red", "green", "blue", "red", "green", "blue"]
QUESTIONS = [(f"{number}.jpg", f"What stands in place {number}?", f"a {colour} cube stands there") for number, colour in enumerate(COLOURS)]


@pytest.fixture
def pictures(house):
    for url, _, _ in QUESTIONS[:5]:
        Image.new("RGB", (64, 32), "teal").save(house.settings.home / url)


def evaluated(house, name, answers, config=None, figures=FIGURES, questions=QUESTIONS):
    """An evaluation that has succeeded with these answers to the image, and with nothing said to a blank one."""
    checkpoint = house.checkpoint(f"{name}.ckpt")
    note = rundir.note_path(checkpoint)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"config": config or {}}))
    asked = {"config": {"checkpoint": str(checkpoint), "csv": house.table}, "name": name}
    evaluation = house.launch.post("/evaluations", asked).json()["id"]
    work = house.claim()
    lines = [
        Prediction(url=url, query=query, references=[reference], prediction=text, condition=condition, expect=expect(reference, figures))
        for condition, texts in (("image", answers), ("blank", [""] * len(answers)))
        for (url, query, reference), text in zip(questions, texts, strict=True)
    ]
    (work.directory / "predictions.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
    (work.directory / "metrics.json").write_text(report(lines, figures).model_dump_json())
    work.say(StageEvent(name="evaluate", status="started"))
    work.end(JobStatus.succeeded)
    return evaluation


def expect(reference, figures):
    return {"colour": reference.split()[1]} if figures else None


def right(house, name="right", **more):
    return evaluated(house, name, [reference for _, _, reference in QUESTIONS], **more)


def wrong(house, name="wrong", **more):
    return evaluated(house, name, ["a red cube stands there", *["<i>nothing</i> stands there"] * 5], **more)


def read(house, **params):
    answer = house.browser.get("/evals/compare", params=params)
    assert answer.status_code == 200, answer.text
    return answer.text


def text_of(page):
    """What a person reads, blanks made one."""
    return " ".join(html.unescape(re.sub(r"<(script|style)[^>]*>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)).split())


def links(page):
    """Every link to a state of the comparison, by what it says."""
    found = re.findall(r'<a [^>]*?href="(/evals/compare\?[^"]*)"[^>]*>(.*?)</a>', page, re.DOTALL)
    return {text_of(label): parse_qs(urlsplit(html.unescape(url)).query) for url, label in found}


def listed(page):
    return re.findall(r'<span class="q">(.*?)</span>', page)


def opened(page):
    return html.unescape(re.search(r"<h2>“(.*?)”</h2>", page)[1])


@pytest.mark.usefixtures("pictures")
def test_figures_grounding_and_differences_stand_side_by_side(house):
    page = text_of(read(house, ids=f"{wrong(house)},{right(house)}"))
    assert "6 questions · paired bootstrap of 10,000, 95 %" in page
    assert re.search(r"ROUGE-L 0\.\d{3} ±0\.\d{3} 1\.000 ±0\.000 \+0\.\d{3} \* 95 %: \+0\.\d{3} to \+0\.\d{3}", page)
    assert re.search(r"colour n 6 0\.167 ±0\.\d{3} 1\.000 ±0\.000 \+0\.833 (\* )?95 %: \+0\.\d{3} to \+1\.000", page)
    assert re.search(r"METEOR \(exact, stem\) 0\.\d{3} ±0\.\d{3} 0\.996 ±0\.000 \+0\.\d{3} \* 95 %", page)
    assert re.search(r"CIDEr n 6: too few to mean much", page)
    assert re.search(r"blank answers ↓ lower is better 0\.000 ±0\.000 0\.000 ±0\.000 0\.000 95 %: 0\.000 to 0\.000, could be none", page)
    assert re.search(r"repeated answers ↓ lower is better 0\.667 ±0\.\d{3} 0\.500 ±0\.\d{3}", page)
    assert "blank: CIDEr 0.000 0.000" in page and "blank: colour 0.000 0.000" in page


@pytest.mark.usefixtures("pictures")
def test_what_the_right_image_is_worth_stands_among_the_controls(house):
    page = text_of(read(house, ids=f"{wrong(house)},{right(house)}"))
    assert re.search(r"image − blank: colour \+0\.167 ±0\.\d{3} \+1\.000 ±0\.000", page)
    assert "blank: same answer 0.000 ±0.000 0.000 ±0.000" in page


@pytest.mark.usefixtures("pictures")
def test_a_difference_that_is_sure_among_all_others_has_a_star(house):
    many = [(f"{number % 6}.jpg", f"What stands in place {number}?", f"a {COLOURS[number % 6]} cube stands there") for number in range(24)]
    good, bad = [reference for _, _, reference in many], ["a wall"] * 24
    ids = ",".join(str(evaluated(house, name, said, questions=many)) for name, said in (("bad", bad), ("good", good)))
    page = text_of(read(house, ids=ids))
    assert re.search(r"ROUGE-L \S+ ±\S+ 1\.000 ±0\.000 \+0\.\d{3} \* 95 %", page)
    same = text_of(read(house, ids=f"{right(house, 'one')},{right(house, 'two')}"))
    assert "*" not in same


@pytest.mark.usefixtures("pictures")
def test_a_difference_whose_interval_holds_0_says_so_in_words(house):
    first = right(house)
    second = evaluated(house, "alike", ["a blue cube stands there", *[reference for _, _, reference in QUESTIONS[1:]]])
    page = text_of(read(house, ids=f"{first},{second}"))
    assert re.search(r"colour n 6 1\.000 ±0\.000 0\.833 ±0\.\d{3} −0\.167 95 %: −0\.\d{3} to 0\.000, could be none", page)


@pytest.mark.usefixtures("pictures")
def test_the_question_on_which_one_beats_the_other_most_is_open_with_all_answers(house):
    page = read(house, ids=f"{wrong(house)},{right(house)}")
    assert len(listed(page)) == 5 and QUESTIONS[0][1] not in listed(page)
    assert opened(page) == listed(page)[0]
    assert '<span class="extra">i</span>&gt;<span class="extra">nothing</span>' not in page  # between two words of a mark, their mark
    assert '<span class="extra">i&gt;nothing&lt;/i</span>' in page and "<i>nothing" not in page
    assert '<span class="same">a green cube stands there</span>' in page
    assert '<li class="wrong">' in page and '<li class="right">' in page


@pytest.mark.usefixtures("pictures")
def test_filters_words_and_metric_are_links_that_leave_defaults_out(house):
    ids = f"{wrong(house)},{right(house)}"
    page = read(house, ids=ids)
    assert links(page)["A beats B"] == {"ids": [ids], "filter": ["a_gt_b"]}
    assert links(page)["B beats A"] == {"ids": [ids]}
    assert links(page)["Grounding"] == {"ids": [ids], "metric": ["grounding"]}
    assert "No question is like that." in text_of(read(house, ids=ids, filter="a_gt_b"))
    assert listed(read(house, ids=ids, filter="all", q="place 3")) == [QUESTIONS[3][1]]
    assert len(listed(read(house, ids=ids, metric="grounding"))) == 5
    assert "No question here holds “elephant”." in text_of(read(house, ids=ids, q="elephant"))


@pytest.mark.usefixtures("pictures")
def test_a_question_is_opened_by_its_number_and_knows_the_ones_beside_it(house):
    ids = f"{wrong(house)},{right(house)}"
    page = read(house, ids=ids, filter="all", sample=3)
    assert opened(page) == QUESTIONS[2][1]
    assert (links(page)["K"]["sample"], links(page)["J"]["sample"]) == (["2"], ["4"])
    assert 'rel="prev"' in page and 'rel="next"' in page
    assert opened(read(house, ids=ids, filter="a_gt_b", sample=3)) == QUESTIONS[2][1]  # also where the filter leaves it out


@pytest.mark.usefixtures("pictures")
def test_the_base_may_be_any_of_them_and_ids_may_come_one_by_one(house):
    first, second = right(house), wrong(house)
    page = house.browser.get(f"/evals/compare?ids={first}&ids={second}&base={second}").text
    assert "A − B" in text_of(page) and "+0.833" in text_of(page)
    assert links(page)["make baseline"] == {"ids": [f"{first},{second}"]}
    assert links(page)["A beats B"] == {"ids": [f"{first},{second}"], "base": [str(second)]}


@pytest.mark.usefixtures("pictures")
def test_the_panorama_is_there_with_the_views_the_model_was_given(house):
    first, second = right(house), wrong(house, config={"fov": 100, "overlap": 0.1})
    page = read(house, ids=f"{first},{second}", sample=1, view=3)
    assert page.count('class="fp') == 8 and page.count('class="fp on"') == 1
    assert "8 views of 90° were given to the model." in page
    assert 'data-yaw="90.0" data-pitch="0.0" data-fov="90.0" data-view="3"' in page
    assert links(page)["B: 4 views"] == {"ids": [f"{first},{second}"], "sample": ["1"], "ring": [str(second)], "yaw": ["90"]}
    other = read(house, ids=f"{first},{second}", sample=1, ring=second, yaw=-20.5, pitch=10, fov=60)
    assert other.count('class="fp') == 4
    assert 'data-yaw="-20.5" data-pitch="10.0" data-fov="60.0"' in other
    image = html.unescape(re.search(r'data-src="(.*?)"', other)[1])
    assert house.browser.get(image).headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("config", "says", "buttons"),
    [
        ({"crop_strategy": "resize"}, "The whole panorama was given to the model as one view.", ["1 all"]),
        ({"crop_strategy": "cubemap"}, "6 views of 90° were given to the model.", ["1 0°", "4 270°", "5 0° ↑90°", "6 0° ↓90°"]),
        ({"crop_strategy": "sliding_window", "fov": 120}, "6 crops of 120° and the full height were given to the model.", ["1 0°", "6 300°"]),
        (
            {"crop_strategy": "anyres_e2p", "pitches": [30]},
            "The whole panorama and 8 views of 90° were given to the model.",
            ["1 all", "9 315° ↑30°"],
        ),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_views_of_every_crop_strategy_are_drawn_and_named(house, config, says, buttons):
    page = read(house, ids=right(house, config=config), sample=1)
    assert says in text_of(page)
    views = json.loads(html.unescape(re.search(r"data-views='(.*?)'", page)[1]))
    assert page.count('class="fp') == len(views) == RunConfig(**config).views
    assert {view["projection"] for view in views} <= {"perspective", "equirectangular"}
    assert [button for button in buttons if button not in text_of(page)] == []


@pytest.mark.usefixtures("pictures")
def test_the_whole_panorama_is_outlined_by_the_edge_of_the_map(house):
    page = read(house, ids=right(house, config={"crop_strategy": "resize"}), sample=1)
    around = np.array([point.split() for point in re.search(r'class="fp" d="M(.*?)Z"', page)[1].split("L")], float)
    assert around.min(axis=0).tolist() == [0, 0] and around.max(axis=0).tolist() == [360, 180]
    assert (((around % 180) == 0).any(axis=1)).all()


@pytest.mark.usefixtures("pictures")
def test_a_panorama_that_is_gone_leaves_the_texts(house):
    page = read(house, ids=f"{wrong(house)},{right(house)}", sample=6)
    assert "The panorama cannot be shown. 5.jpg: no such file" in text_of(page)
    assert "pano-view" not in page and "a blue cube stands there" in page


@pytest.mark.usefixtures("pictures")
def test_a_checkpoint_that_is_gone_leaves_the_panorama_without_views(house):
    first, second = right(house), wrong(house)
    (house.settings.home / "right.ckpt").unlink()
    page = read(house, ids=f"{first},{second}", sample=1)
    assert "Which views the model was given is not known" in page and "pano-view" in page and 'class="fp' not in page


def test_figures_that_take_long_come_after_the_page(house, monkeypatch):
    ids = f"{wrong(house)},{right(house)}"
    monkeypatch.setattr("app.evaluations.pages.QUICK", 1)
    page = read(house, ids=ids)
    assert "ROUGE-L 0" not in text_of(page) and 'part=metrics" hx-trigger="load"' in page
    assert opened(page)
    assert "ROUGE-L 0" in text_of(read(house, ids=ids, part="metrics"))
    assert "ROUGE-L 0" in text_of(read(house, ids=ids))  # now they are at hand


def test_without_scripts_a_link_waits_for_the_figures(house, monkeypatch):
    ids = f"{wrong(house)},{right(house)}"
    monkeypatch.setattr("app.evaluations.pages.QUICK", 1)
    assert links(read(house, ids=ids))["Show the page with them"] == {"ids": [ids], "wait": ["1"]}
    assert "ROUGE-L 0" in text_of(read(house, ids=ids, wait=1))


@pytest.mark.usefixtures("pictures")
def test_another_question_is_sent_alone_with_the_curve_it_is_marked_on(house):
    ids = f"{wrong(house)},{right(house)}"
    piece = read(house, ids=ids, sample=2, part="samples")
    assert piece.lstrip().startswith("<section") and "<html" not in piece
    assert opened(piece) == QUESTIONS[1][1] and 'id="deltas"' in piece and 'hx-swap-oob="true"' in piece
    assert "hx-swap-oob" not in read(house, ids=ids, sample=2)


@pytest.mark.usefixtures("pictures")
def test_one_evaluation_alone_shows_its_answers(house):
    page = read(house, ids=wrong(house))
    assert opened(page) == QUESTIONS[0][1] and 'id="metrics"' not in page and 'id="deltas"' not in page
    assert list(links(page))[:3] == ["Best", "Low", "All"]


def test_questions_without_ground_truth_are_compared_by_captions_alone(house):
    ids = f"{wrong(house, figures=None)},{right(house, figures=None)}"
    page = read(house, ids=ids)
    assert 'id="grounding"' not in page and "Grounding" not in links(page)
    assert house.browser.get("/evals/compare", params={"ids": ids, "metric": "grounding"}).status_code == 422


def test_evaluations_that_cannot_be_compared_say_why_and_can_be_taken_away(house):
    first, second = right(house), evaluated(house, "less", ["a red cube"], questions=QUESTIONS[:1])
    page = read(house, ids=f"{first},{second}")
    assert "Not comparable. less and right differ in 5 questions" in text_of(page)
    assert f'href="/evals/compare?ids={first}" aria-label="Take B away"' in page


def test_an_evaluation_that_has_not_ended_cannot_be_compared_yet(house):
    first = right(house)
    waiting = house.launch.post("/evaluations", {"config": {"checkpoint": str(house.checkpoint("x.ckpt")), "csv": house.table}}).json()["id"]
    assert f"Not comparable. Evaluation {waiting} has no predictions yet." in text_of(read(house, ids=f"{first},{waiting}"))


@pytest.mark.parametrize(
    ("params", "status", "says"),
    [
        ({}, 422, "ids: name the evaluations to compare"),
        ({"ids": "one"}, 422, "ids: 'one' is no number."),
        ({"ids": "1,2,3,4,5,6,7"}, 422, "at most 6 fit side by side"),
        ({"ids": "1,2", "base": 9}, 422, "base: evaluation 9 is not among those compared."),
        ({"ids": "99"}, 404, "There is no evaluation 99."),
        ({"ids": "1,2", "yaw": "nan"}, 422, "yaw"),
        ({"ids": "1,2", "filter": "most"}, 422, "filter"),
    ],
)
def test_an_address_that_cannot_work_says_what_is_wrong(quiet_house, params, status, says):
    answer = quiet_house.browser.get("/evals/compare", params=params)
    assert answer.status_code == status and says in html.unescape(answer.text)


def noting_images(house, evaluation, sha256):
    """As if the answers of an evaluation named their image files."""
    path = Path(house.read.get(f"/evaluations/{evaluation}").json()["directory"], "predictions.jsonl")
    lines = [Prediction.model_validate_json(line).model_copy(update={"image_sha256": sha256}) for line in path.read_text().splitlines()]
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines))


def test_answers_of_other_images_are_not_comparable_and_of_unknown_ones_with_a_warning(house, pictures):
    ids = [right(house), wrong(house)]
    noting_images(house, ids[0], "a" * 64)
    address = f"/evals/compare?ids={ids[0]},{ids[1]}"
    shown = house.browser.get(address).text
    assert "wrong does not say of which image files its answers are" in shown and "Not comparable." not in shown
    noting_images(house, ids[1], "b" * 64)
    shown = house.browser.get(address).text
    assert "Not comparable." in shown and "were asked of other images in 6 questions" in shown
    assert house.read.get(f"/comparisons?ids={ids[0]},{ids[1]}").status_code == 422
