"""The page of one run in every state, in pieces, and its forms, as a browser without scripts sees and sends them."""

import html
import json
import re
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest

from app import db
from app.logs import plain
from app.models import Job, JobStatus, StageRun
from app.runs.page.pages import Part
from panollava import rundir
from panollava.events import CheckpointSaved, Metric, Progress, StageEvent
from tests.web.conftest import ARCHITECTURE, Claimed, House

PIECES = ["head", "track", "tabs", "now", "saved", "lineage"]


@dataclass
class Seen:
    """A page as a person reads it."""

    source: str

    @property
    def text(self) -> str:
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.source)).split())

    def piece(self, name: str) -> "Seen":
        """The element of that id, with what is in it."""
        start = self.source.index(f'id="{name}"')
        tag = re.search(r"<(\w+) [^>]*$", self.source[:start])
        assert tag
        depth, begin = 0, tag.start()
        for each in re.finditer(rf"<(/?){tag[1]}\b", self.source[begin:]):
            depth += -1 if each[1] else 1
            if depth == 0:
                return Seen(self.source[begin : begin + each.end()] + ">")
        raise AssertionError(f"{name} is not closed")

    @property
    def actions(self) -> list[str]:
        return re.findall(r'action="/runs/\d+/(\w+)"', self.source)


def look(house: House, run_id: int, query: str = "") -> Seen:
    answer = house.browser.get(f"/runs/{run_id}{query}")
    assert answer.status_code == 200, answer.text
    return Seen(answer.text)


def begun(house: House, stage: str = "resampler") -> Claimed:
    work = house.claim()
    work.say(StageEvent(name=stage, status="started"))
    return work


def saved(work: Claimed, step: int, kind: str = "epoch", loss: float | None = None) -> CheckpointSaved:
    """A checkpoint file with its note, and the event that tells of it."""
    path = work.directory / "checkpoints" / (f"{kind}.ckpt" if kind in ("best", "last") else f"{kind}={step}.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights" * step)
    facts = {"kind": kind, "step": step, "epoch": step / 10, "metrics": {"val_loss": loss} if loss else {}, "sha256": f"{step:04}", "size": 7 * step}
    note = rundir.CheckpointNote(stage="resampler", created_at=rundir.now(), config={}, tensors={}, architecture=ARCHITECTURE, **facts)
    rundir.write_whole(rundir.note_path(path), note.model_dump_json())
    return CheckpointSaved(path=str(path.relative_to(work.directory)), **facts)


def silent(house: House, job_id: int, seconds: float) -> None:
    with house.writing.begin() as session:
        job = session.get_one(Job, job_id)
        job.heartbeat_at = db.now(session) - timedelta(seconds=seconds)


# states


def test_a_queued_run_says_why_it_waits_and_can_be_stopped(house):
    page = look(house, house.submit(name="first")["id"])
    assert "Queued" in page.piece("head").text
    assert "Resampler waits: needs 1 device; no worker serves x1." in page.text
    assert page.actions == ["stop"]
    assert 'href="/runs/new?from=1"' in page.source
    assert "heartbeat" not in page.piece("head").text


def test_a_run_that_reads_its_images_shows_them_and_no_share_of_its_steps(house):
    run = house.submit()
    begun(house).say(Progress(done=3, total=8, unit="images"))
    track = look(house, run["id"]).piece("track")
    assert "3 / 8 images read" in track.text
    assert "%" not in track.text


def test_a_chain_whose_stages_were_trained_before_says_when_it_is_done(house):
    before = house.submit(stage="finetune")
    work = begun(house)
    work.say(CheckpointSaved(path="best.ckpt", kind="best", step=5, epoch=1, sha256="0", size=7, metrics={}))
    house.checkpoint(str((work.directory / "best.ckpt").relative_to(house.settings.home)))
    work.end(JobStatus.succeeded, best="best.ckpt")
    run = house.submit(stage="resampler,finetune", name="chain")
    begun(house).say(Progress(done=250, total=1000, unit="steps", seconds_per_unit=1.84, eta_seconds=3480))
    track = look(house, run["id"]).piece("track")
    assert f"as in run {before['id']}" in track.text
    assert "The whole chain is done in 58 min , about" in track.text or "The whole chain is done in 58 min, about" in track.text


def test_a_running_run_shows_heartbeat_progress_and_the_time_left(house):
    run = house.submit(stage="resampler,finetune", name="chain")
    work = begun(house)
    five_minutes_ahead = time.time() + 300
    work.say(Progress(t=five_minutes_ahead, done=250, total=1000, unit="steps", seconds_per_unit=1.84, eta_seconds=3480, device_memory=31 * 2**30))
    page = look(house, run["id"])
    assert re.search(r"heartbeat [\d.]+ s ago", page.piece("head").text)
    assert re.search(r"step 250, [\d.]+ s ago holds 31.0 GB on its device", page.piece("head").text)
    told = house.launch.get(f"/runs/{run['id']}").json()["stages"][0]
    assert (told["step"], told["device_memory"]) == (250, 31 * 2**30)
    assert 0 <= told["step_age_seconds"] < 60, "by the database's clock, whatever the worker's says"
    assert "every 5s" in page.piece("head").source, "a heartbeat is no event"
    assert 'data-lost-after="30"' in page.source and "beat is-lost" not in page.source
    track = page.piece("track")
    for told in ("25%", "250 / 1,000 steps", "1.84 s/step", "58 min left , about", "After it: finetune.", "waits for resampler", "from hub weights"):
        assert told in track.text
    assert page.actions == ["stop", "save"]
    assert 'data-confirm="Stop run 1?' in page.source


def test_a_silent_run_is_never_called_running(house):
    run = house.submit()
    work = begun(house)
    silent(house, work.job_id, 31)
    page = look(house, run["id"])
    assert "beat is-lost" in page.source
    heard = re.search(r"Lost: nothing has been heard of resampler since (\S+ \S+ UTC) *, [\d.]+ s ago", page.text)
    assert heard, "with the time, though no worker lives"
    shown = re.findall(r'<span class="(when-\w+)"><span class="pill \w+">.*?</svg>(.*?)</span>', page.source)
    assert shown == [("when-heard", "Running"), ("when-silent", "No heartbeat")]  # run.css shows the second by .is-lost


def test_a_failed_run_says_what_happened_where_it_stands_in_the_log_and_what_helps(house):
    run = house.submit()
    work = begun(house)
    work.say(saved(work, 20))
    work.print("12:00:01 I step 20/40\nTraceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.\n")
    work.end(JobStatus.failed, detail="CUDA out of memory. Tried 2 GiB.\nmore of it")
    page = look(house, run["id"])
    head = page.piece("head")
    for told in (
        "failed",
        "It ran out of memory on its device.",
        "CUDA out of memory. Tried 2 GiB.",
        "smaller batch_size",
        "Resume from resampler@20",
    ):
        assert told in head.text
    assert 'href="/runs/1?log_stage=resampler&amp;line=3">Line 3 of the log' in head.source
    assert page.actions == ["resume", "resume"]
    assert "every 5s" not in head.source, "nothing about it changes by itself any more"


def test_a_run_that_failed_before_its_first_checkpoint_begins_again(house):
    run = house.submit()
    begun(house).end(JobStatus.failed, detail="x.csv: there is no such file.")
    assert "Begin resampler again" in look(house, run["id"]).piece("head").text


def test_a_stopped_run_says_so_and_names_where_it_would_go_on(house):
    run = house.submit()
    work = begun(house)
    house.launch.post(f"/runs/{run['id']}/stop")
    work.say(saved(work, 12, "step"))
    work.end(JobStatus.stopped)
    head = look(house, run["id"]).piece("head")
    for told in ("Stopped", "Saved at step 12: it goes on from there.", "Resume from resampler@12"):
        assert told in head.text
    assert 'role="alert"' not in head.source


def succeed(house: House, stage: str, step: int, loss: float) -> None:
    work = begun(house, stage)
    work.say(Metric(step=step, epoch=1, values={"train_loss": 1.0}), Progress(done=step, total=step, unit="steps"))
    work.say(*(saved(work, step, kind, loss) for kind in ("epoch", "last", "best")))
    work.end(JobStatus.succeeded, best=f"checkpoints/epoch={step}.ckpt")


@pytest.fixture
def chain(house):
    run = house.submit(stage="all", name="chain", stages={"vision": {"lr": 1e-4}})
    for stage, step, loss in (("vision", 300, 0.412), ("resampler", 200, 0.31), ("finetune", 400, 0.21)):
        succeed(house, stage, step, loss)
    return run["id"]


def test_a_chain_that_succeeded_shows_what_each_stage_was_handed_and_its_best(house, chain):
    page = look(house, chain)
    assert "Succeeded" in page.piece("head").text
    assert page.actions == []
    track = page.piece("track")
    for told in ("300 steps", "from vision@300", "from resampler@200", "best val_loss 0.4120", "best val_loss 0.2100"):
        assert told in track.text
    assert "%" not in track.text and "left" not in track.text
    with house.reading() as session:
        handed = session.get_one(StageRun, 1).best_checkpoint_id
    assert f'href="/checkpoints/{handed}">vision@300' in track.source
    assert re.search(r"vision@300 handed to (run 1 )?resampler", page.piece("lineage").text)


# tabs


def test_a_file_with_three_names_is_one_checkpoint(house, chain):
    page = look(house, chain, "?tab=checkpoints")
    assert "Checkpoints 3" in page.piece("tabs").text
    table = page.piece("checkpoints")
    assert re.findall(r"\w+@\d+(?=</a>)", table.source) == ["finetune@400", "resampler@200", "vision@300"]
    assert re.search(r"best, last, handed to (run 1 )?finetune", table.text)
    assert table.source.count("/runs/new?checkpoint=") == 3
    assert table.source.count("/evals/new?checkpoint=") == 2, "a vision encoder alone answers nothing"
    assert 'action="/checkpoints/compare"' in table.source and table.source.count('name="ids"') == 3


def test_the_config_shows_what_was_changed_or_everything_and_what_holds_a_text(house, chain):
    page = look(house, chain, "?tab=config").piece("config")
    assert "stages.vision.lr" in page.text and "0.0001" in page.text and "5e-06" in page.text
    assert "stages.vision.epochs" not in page.text.partition("As JSON")[0]
    assert "--set vision.lr=0.0001" in page.text
    assert "stages.vision.epochs" in look(house, chain, "?tab=config&all=1").piece("config").text
    rows = re.findall(r"<tr( hidden)?><td class=\"mono\">([\w.]+)", look(house, chain, "?tab=config&find=CSV_").source)
    assert {name for hidden, name in rows if not hidden} == {"csv_train", "csv_val"} and len(rows) > 2


def test_the_timeline_names_every_move_with_who_and_why(house):
    run = house.submit()
    begun(house).end(JobStatus.failed, detail="no")
    house.launch.post(f"/runs/{run['id']}/resume")
    rows = re.findall(r"<tr>(<td>.*?)</tr>", look(house, run["id"], "?tab=timeline").source)
    told = [Seen(row).text.split(" ", 3)[3] for row in rows]
    assert told == [
        "Resampler Queued submitted token:test-launch –", "Resampler Starting taken by a worker x1 1",
        "Resampler Running the trainer began trainer 1", "Resampler Failed failed test 1", "Resampler Queued to go on token:test-launch 1",
    ]  # fmt: skip


def test_newest_values_are_those_of_the_stage_that_is_looked_at(house, chain):
    assert "finetune · step 400" in look(house, chain).piece("now").text
    assert "vision · step 300" in look(house, chain, "?stage=vision").piece("now").text


def test_a_link_to_another_section_keeps_the_rest_of_the_address(house, chain):
    tabs = look(house, chain, "?stage=vision&x=epoch&line=3").piece("tabs").source
    assert 'href="/runs/1?stage=vision&amp;x=epoch&amp;tab=config"' in tabs
    assert 'href="/runs/1?stage=vision&amp;x=epoch" aria-current="page"' in tabs


def test_a_line_of_the_log_can_be_linked_to(house):
    run = house.submit()
    begun(house).print("".join(f"line {n} of many\n" for n in range(1, 9000)))
    assert "line 2 of many" not in look(house, run["id"]).text
    page = look(house, run["id"], "?line=2")
    assert "line 2 of many" in page.text and "line 1 of many" not in page.text


def test_a_browser_is_told_what_a_level_is_recognised_by(house):
    page = look(house, house.submit()["id"]).source
    patterns = json.loads(html.unescape(re.search(r"data-levels='([^']*)'", page)[1]))
    assert [tuple(each) for each in patterns] == list(plain.PATTERNS)


# pieces


@pytest.mark.parametrize("query", ["", "?stage=all"])
def test_a_piece_alone_is_the_piece_in_the_page(house, chain, query):
    page = look(house, chain, query)
    for name in PIECES:
        alone = look(house, chain, f"{query or '?'}&part={name}")
        assert settled(alone.source) == settled(page.piece(name).source), name


@pytest.mark.parametrize("tab", ["config", "checkpoints", "timeline"])
def test_a_section_alone_is_the_section_in_the_page(house, chain, tab):
    assert settled(look(house, chain, f"?tab={tab}&part={tab}").source) == settled(look(house, chain, f"?tab={tab}").piece(tab).source)


def settled(source: str) -> str:
    """Without what only the clock changes."""
    return re.sub(r">[\d.]+ s ago<", "><", source).strip()


def test_every_piece_has_a_template_and_asks_for_itself(house, chain):
    for name in Part.__args__:
        piece = look(house, chain, f"?part={name}").source
        assert f'id="{name}"' in piece
        if name != "config":  # that never changes
            assert re.search(rf'hx-get="/runs/1\?(?:[^"]*&amp;)?part={name}"', piece), name


# acts, without scripts


def test_stop_save_and_resume_lead_back_to_the_page(house):
    run = house.submit()
    work = begun(house)
    answer = house.browser.post(f"/runs/{run['id']}/save", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run['id']}")
    assert "saves at its next step" in look(house, run["id"]).piece("head").text
    assert "Stopping" in Seen(house.browser.post(f"/runs/{run['id']}/stop").text).piece("head").text
    work.end(JobStatus.stopped)
    assert "Queued" in Seen(house.browser.post(f"/runs/{run['id']}/resume").text).piece("head").text
    assert house.claim().directory.name == "attempt-2"


def test_a_script_that_acts_is_not_sent_away(house):
    run = house.submit()
    headers = {"HX-Request": "true", "HX-Current-URL": f"http://testserver/runs/{run['id']}?stage=all"}
    answer = house.browser.post(f"/runs/{run['id']}/stop", headers=headers)
    assert answer.status_code == 204 and not {"hx-redirect", "hx-location"} & set(answer.headers)


def test_what_cannot_be_done_is_told_on_a_page(house):
    run = house.submit()
    answer = house.browser.post(f"/runs/{run['id']}/resume")
    assert answer.status_code == 409 and "is queued already" in answer.text and "<html" in answer.text
    assert house.browser.post("/runs/9/stop").status_code == 404


def test_a_form_of_another_site_acts_on_nothing(house):
    run = house.submit()
    assert house.browser.post(f"/runs/{run['id']}/stop", headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert house.read.get(f"/runs/{run['id']}").json()["status"] == "queued"


# addresses


def test_the_newest_run_has_an_address_of_its_own(house):
    assert house.browser.get("/runs/latest", follow_redirects=False).headers["location"] == "/runs"
    house.submit()
    newest = house.submit()
    assert house.browser.get("/runs/latest", follow_redirects=False).headers["location"] == f"/runs/{newest['id']}"


def test_a_run_that_never_was_is_said_to_be_none(house):
    answer = house.browser.get("/runs/77")
    assert answer.status_code == 404 and "There is no run 77." in answer.text


def test_the_page_needs_no_inline_style_or_script(house, chain):
    for query in ("", "?tab=config", "?tab=checkpoints", "?tab=timeline"):
        source = look(house, chain, query).source
        assert not re.search(r"<[^>]+ (?:style|on\w+)=", source)
        assert not re.search(r"<script(?![^>]* src=)", source)
