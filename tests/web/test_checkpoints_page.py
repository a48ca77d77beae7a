"""Checkpoints in a browser: the list and what each is kept for, one of them, and several side by side."""

import re
from pathlib import Path

import pytest
from sqlmodel import select

from app.checkpoints import pages
from app.models import Checkpoint, Evaluation, JobStatus
from panollava import rundir
from panollava.events import CheckpointSaved
from panollava.rundir import CheckpointNote
from panollava.stages import Stage
from tests.web.conftest import ARCHITECTURE

NAMED = re.compile(r'href="/checkpoints/(\d+)"><span class="dot"></span>([^<]+)</a>')


def save(work, step, kind="epoch", name=None, stage=Stage.resampler, config=None, pool=2, data=None, **metrics):
    """A checkpoint with its note, as a trainer leaves it, brought in by the worker."""
    path = work.directory / "checkpoints" / (name or f"{kind}={step}.ckpt")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((data or f"weights {stage} {step} {work.directory}").encode())
    facts = {"kind": kind, "step": step, "epoch": 1.0, "metrics": metrics, "sha256": rundir.sha256(path), "size": path.stat().st_size}
    note = CheckpointNote(
        stage=stage, created_at=rundir.now(), architecture=ARCHITECTURE.model_copy(update={"pool": pool}), config=config or {"seed": 1},
        tensors={"resampler.weight": [8, 4], "resampler.bias": [8]}, **facts,
    )  # fmt: skip
    rundir.note_path(path).write_text(note.model_dump_json())
    work.say(CheckpointSaved(path=f"checkpoints/{path.name}", **facts))
    return path


def stored(house):
    with house.reading() as session:
        return {Path(row.path).name: row for row in session.exec(select(Checkpoint))}


@pytest.fixture
def chain(house):
    """A run whose stage vision has handed its best checkpoint to stage resampler, which is at work."""
    house.submit(name="mine", stage="vision,resampler")
    work = house.claim()
    save(work, 10, name="v1.ckpt", stage=Stage.vision, val_loss=1.5, val_inv=0.25)
    save(work, 20, name="v2.ckpt", stage=Stage.vision, data="two", val_loss=1.25)
    save(work, 20, "best", "best.ckpt", stage=Stage.vision, data="two", val_loss=1.25)
    save(work, 20, "last", "last.ckpt", stage=Stage.vision, data="two", val_loss=1.25)
    work.end(JobStatus.succeeded, best="checkpoints/v2.ckpt")
    work = house.claim()
    save(work, 5, "step", "r1.ckpt")
    return stored(house)


def row(html, checkpoint):
    return re.sub(r"\s+", " ", re.search(rf'<tr>\s*<td><input[^>]+value="{checkpoint.id}".*?</tr>', html, re.DOTALL).group())


def test_every_file_is_listed_once_with_what_it_is_kept_for(house, chain):
    html = house.browser.get("/checkpoints").text
    assert [label for _id, label in NAMED.findall(html)] == ["resampler@5", "vision@20", "vision@10"]
    best = row(html, chain["v2.ckpt"])
    assert 'best, last, <a class="opens" href="/runs/1">handed to resampler</a>' in best
    assert "1.250" in best and "mine" in best
    assert "val_inv 0.2500" in row(html, chain["v1.ckpt"])
    assert "handed" not in row(html, chain["r1.ckpt"]) and "–" in row(html, chain["r1.ckpt"])


def test_the_second_names_are_listed_where_they_are_asked_for(house, chain):
    html = house.browser.get("/checkpoints?kind=last").text
    assert [int(id_) for id_, _label in NAMED.findall(html)] == [chain["last.ckpt"].id]
    assert "best, last" in row(html, chain["last.ckpt"])


def test_the_list_is_narrowed_by_run_stage_and_kind(house, chain):
    def labels(query):
        return [label for _id, label in NAMED.findall(house.browser.get(f"/checkpoints?{query}").text)]

    assert labels("stage=vision") == ["vision@20", "vision@10"]
    assert labels("stage=vision&run=1&kind=epoch&sort=") == ["vision@20", "vision@10"]
    assert labels("kind=step&stage=") == ["resampler@5"]
    html = house.browser.get("/checkpoints?run=7").text
    assert "No checkpoint is of this stage, kind and run." in html and 'href="/checkpoints">Clear' in html


def test_sorted_by_val_loss_it_holds_those_that_have_one(house, chain):
    html = house.browser.get("/checkpoints?sort=val_loss").text
    assert [label for _id, label in NAMED.findall(html)] == ["vision@20", "vision@10"]
    assert "only those with a val_loss are in this order" in html
    assert [each["step"] for each in house.read.get("/checkpoints", sort="-val_loss", kind="epoch").json()["items"]] == [10, 20]


def test_pages_of_checkpoints_lead_on(house, chain, monkeypatch):
    monkeypatch.setattr(pages, "PER_PAGE", 2)
    html = house.browser.get("/checkpoints").text
    after = re.search(r'rel="next" href="([^"]+)"', html).group(1).replace("&amp;", "&")
    assert [label for _id, label in NAMED.findall(house.browser.get(after).text)] == ["vision@10"]


def test_new_checkpoints_are_announced(house, chain):
    newest = chain["r1.ckpt"].id
    assert f"/checkpoints?part=new&amp;id={newest}" in house.browser.get("/checkpoints").text
    assert "1 new checkpoint" in house.browser.get(f"/checkpoints?part=new&id={newest - 1}").text
    assert "new checkpoint" not in house.browser.get(f"/checkpoints?part=new&id={newest}").text


def test_without_checkpoints_the_list_says_where_they_come_from(house):
    assert "No checkpoints yet. A run writes one at the end of every epoch." in house.browser.get("/checkpoints").text


# One checkpoint


def test_a_checkpoint_shows_what_its_note_says_and_what_can_be_done_with_it(house, chain):
    start = chain["r1.ckpt"]
    html = house.browser.get(f"/checkpoints/{start.id}").text
    for fact in (
        "resampler@5",
        start.sha256,
        start.path,
        "siglip_vision_model",
        f"/runs/new?checkpoint={start.id}",
        f"/evals/new?checkpoint={start.id}",
    ):
        assert fact in html, fact
    assert re.search(r"<dt>tensors</dt><dd>2</dd>\s*<dt>parameters</dt><dd>40</dd>", html)
    assert "saved between two validations" in html


def test_its_lineage_names_what_it_started_from_and_what_started_from_it(house, chain):
    best = chain["v2.ckpt"].id
    assert (
        f'<a class="link" href="/checkpoints/{best}">checkpoint {best} of run 1</a>' in house.browser.get(f"/checkpoints/{chain['r1.ckpt'].id}").text
    )
    html = house.browser.get(f"/checkpoints/{best}").text
    assert "the models themselves" in html
    assert '<a class="link" href="/runs/1">mine #1</a> resampler' in html
    assert f'href="/checkpoints/{chain["best.ckpt"].id}">best.ckpt</a>' in html


def test_vision_alone_cannot_be_evaluated(house, chain):
    assert "/evals/new" not in house.browser.get(f"/checkpoints/{chain['v1.ckpt'].id}").text


def test_a_checkpoint_whose_file_is_gone_says_so_and_offers_nothing(house, chain):
    gone = chain["r1.ckpt"]
    Path(gone.path).unlink()
    html = house.browser.get(f"/checkpoints/{gone.id}").text
    assert "This checkpoint cannot be used." in html and "there is no such checkpoint" in html
    assert "/runs/new?checkpoint" not in html and gone.sha256 in html


def test_a_torn_checkpoint_says_so(house, chain):
    torn = chain["r1.ckpt"]
    Path(torn.path).write_bytes(b"half")
    assert "damaged: 4 bytes instead of" in house.browser.get(f"/checkpoints/{torn.id}").text


def test_a_checkpoint_that_does_not_exist_is_a_page_that_says_so(house):
    answer = house.browser.get("/checkpoints/7")
    assert answer.status_code == 404 and "There is no checkpoint 7." in answer.text


# Side by side


@pytest.fixture
def pair(house):
    """Two finished stages of two runs that differ in a setting, in an architecture field and in their val_loss."""
    for seed, pool, loss in ((1, 2, 2.0), (2, 4, 1.5)):
        house.submit(name=f"run-{seed}")
        work = house.claim()
        save(work, 10, name=f"r{seed}.ckpt", config={"seed": seed, "lr": 1e-5, "stages": {"resampler": {"epochs": seed}}}, pool=pool, val_loss=loss)
        work.end(JobStatus.stopped)
    rows = stored(house)
    return [rows["r1.ckpt"], rows["r2.ckpt"]]


def compare(house, *checkpoints, **query):
    answer = house.browser.get("/checkpoints/compare", params={"ids": [each.id for each in checkpoints]} | query)
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", answer.text)


def test_metrics_are_shown_with_their_differences_to_the_base(house, pair):
    html = compare(house, *pair)
    assert '<b>1.500</b><span class="sr"> the best</span> <small class="up">-0.500<span class="sr"> better</span></small>' in html
    html = compare(house, *pair, base=pair[1].id)
    assert '2 <small class="dn">+0.500<span class="sr"> worse</span></small>' in html


def test_ids_come_joined_by_commas_or_several_times_and_the_address_stays_short(house, pair):
    joined = re.sub(r"\s+", " ", house.browser.get(f"/checkpoints/compare?ids={pair[0].id},{pair[1].id}").text)
    assert f'href="/checkpoints/compare?ids={pair[0].id},{pair[1].id}&amp;base={pair[1].id}">Make it the base' in joined
    assert shown(joined) == shown(compare(house, *pair))


def shown(html):
    """What is in the page, but for the age of things."""
    return re.sub(r"[^>]+ ago<", "<", html[html.index("<main") :])


def test_only_settings_that_differ_are_shown_until_all_are_asked_for(house, pair):
    html = compare(house, *pair)
    assert "2 of 3 differ" in html
    assert ">stages.resampler.epochs</th>" in html and ">seed</th>" in html and ">lr</th>" not in html
    assert '<td class="other">2</td>' in html
    assert ">lr</th>" in compare(house, *pair, all=1)


def test_architectures_that_differ_are_shown(house, pair):
    html = compare(house, *pair)
    assert ">pool</th>" in html and ">views</th>" not in html
    assert "The same in all of them." in compare(house, pair[0], pair[0].model_copy(update={"id": save_twin(house)}))


def save_twin(house):
    house.submit(name="twin")
    work = house.claim()
    save(work, 10, name="twin.ckpt", config={"seed": 1, "lr": 1e-5, "stages": {"resampler": {"epochs": 1}}}, val_loss=3.0)
    return stored(house)["twin.ckpt"].id


def test_losses_of_different_stages_are_not_held_against_each_other(house, chain):
    html = compare(house, chain["v1.ckpt"], chain["r1.ckpt"], chain["v2.ckpt"])
    assert "It was trained on another loss than the base. No difference is shown." in html
    assert "-0.250" in html


@pytest.mark.parametrize(("stage", "is_another"), [(Stage.vision, True), (Stage.resampler, False)])
def test_stage_vision_on_another_overlap_loss_is_not_held_against_the_first(house, stage, is_another):
    """In stage resampler val_loss is the language loss, whatever is added to it."""
    house.submit(stage=str(stage))
    work = house.claim()
    save(work, 1, name="a.ckpt", stage=stage, val_loss=2.0)  # of before there was a choice
    save(work, 2, name="b.ckpt", stage=stage, config={"seed": 1, "overlap_loss": "densecl", "overlap_loss_weight": 0.5}, val_loss=1.0)
    html = compare(house, *[stored(house)[name] for name in ("a.ckpt", "b.ckpt")])
    assert ("It was trained on another loss than the base." in html) == is_another


def test_another_validation_table_makes_losses_incomparable(house):
    house.submit()
    work = house.claim()
    save(work, 1, name="a.ckpt", config={"csv_val": "one.csv"}, val_loss=2.0)
    save(work, 2, name="b.ckpt", config={"csv_val": "two.csv"}, val_loss=1.0)
    html = compare(house, *[stored(house)[name] for name in ("a.ckpt", "b.ckpt")])
    assert "It was validated on another table than the base." in html and "better" not in html


def test_evaluations_are_there_and_those_on_one_table_can_be_compared(house, pair):
    asked = []
    for checkpoint in pair:
        answer = house.launch.post("/evaluations", {"checkpoint_id": checkpoint.id, "config": {"csv": house.table}})
        assert answer.status_code == 201, answer.text
        asked.append(answer.json()["id"])
    assert "Compare on" not in compare(house, *pair)
    with house.writing.begin() as session:
        for id_ in asked:
            session.get_one(Evaluation, id_).metrics = {"captions": {}, "grounding": {}}
    html = compare(house, *pair)
    assert f'href="/evals/compare?ids={asked[0]},{asked[1]}"' in html and "Compare on train" in html
    assert f'href="/evals/{asked[0]}">' in html
    assert f'<a class="opens" href="/evals/{asked[0]}">evaluated</a>' in house.browser.get("/checkpoints").text


def test_a_comparison_goes_on_without_a_file_that_is_gone(house, pair):
    Path(pair[1].path).unlink()
    html = compare(house, *pair)
    assert "there is no such checkpoint" in html and "1.500" in html


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 422, "pick at least two"),
        ("ids=1", 422, "pick at least two"),
        ("ids=1&ids=1", 422, "pick at least two"),
        ("ids=1,x", 422, "is no number"),
        ("ids=1,99", 404, "There is no checkpoint 99."),
        ("ids=1,2,3,4,5,6,7,8,9", 422, "9 checkpoints; at most 8"),
        ("ids=1,2&base=3", 422, "checkpoint 3 is not among those compared"),
    ],
)
def test_a_comparison_that_cannot_be_made_says_why(house, pair, query, status, said):
    answer = house.browser.get(f"/checkpoints/compare?{query}")
    assert answer.status_code == status and said in answer.text
