"""Each known cause of a failure, from the trainer's process to the words on the page, in the API and on the command line."""

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.jobs import causes as told
from app.models import Run
from panollava.causes import Cause
from panollava.errors import BadInput
from tests.web.conftest import House, serving
from tests.web.test_run_page import look
from worker import memory, roster
from worker.follow import Sessions
from worker.work import TRAINER, Work

ROOT = Path(__file__).parents[2]
FAKE_TRAINER = (sys.executable, "-m", "tests.worker.fake_trainer")


def work(house: House, trainer: tuple[str, ...] = FAKE_TRAINER, **environment: str) -> None:
    """A worker takes what there is, with a trainer in a process of its own."""
    sessions = Sessions(house.reading, house.writing)
    member = roster.join(sessions.writing, "one", ["cpu"])
    nobody = "redis+socket:///nowhere/redis.sock?virtual_host=0"
    Work(sessions, member, nobody, os.environ | {"PYTHONPATH": str(ROOT)} | environment, trainer).take()


def stage_of(house: House, run: int) -> dict:
    return house.read.get(f"/runs/{run}").json()["stages"][0]


@pytest.mark.parametrize(
    ("script", "reason", "words", "said", "hint"),
    [
        ("lacks-a-file", "missing_file", "A file is missing.", "'/no/such/panorama.jpg'", "Put what the message names where it was"),
        ("takes-all-memory", "out_of_host_memory", "The machine ran out of memory.", "MemoryError", "fewer num_workers"),
        (
            "asks-the-hub",
            "hub_away",
            "A model is not here, and the hub does not answer.",
            "in the local cache",
            "hf download",
        ),
        ("bad-input", "bad_input", "It refused its input.", "there is no column annotation", "Mend what the message names"),
        ("broken", "exit_code", "The trainer ended with an error.", "RuntimeError: CUDA error: an illegal memory access", "The end of the log says"),
        ("aborts", "crashed", "The trainer crashed.", "killed by SIGABRT, which we did not send", "a defect in a library"),
    ],
)
def test_what_ended_the_trainer_is_told_in_words_with_what_helps(house, script, reason, words, said, hint):
    run = house.submit(name=script)["id"]
    work(house)
    stage = stage_of(house, run)
    assert (stage["status"], stage["reason"], stage["attempt"]) == ("failed", reason, 1), "not tried again: it would end so again"
    assert stage["ended_because"] == words.removesuffix(".") and said in stage["detail"] and hint in stage["hint"]
    head = look(house, run).piece("head").text
    for each in (words, said, hint, "Begin resampler again" if stage["step"] in (None, 0) else "Resume from resampler@5"):
        assert each in head


def test_a_kill_from_outside_is_tried_again_and_every_place_names_the_signal(house):
    run = house.submit(name="dies", max_attempts=2)["id"]
    work(house)
    stage = stage_of(house, run)
    assert (stage["status"], stage["reason"], stage["attempt"]) == ("failed", "signal", 2)
    page = look(house, run, "?tab=timeline")
    head = page.piece("head").text
    assert "saved anything new. The trainer was killed by SIGKILL, which we did not send." in head and "See who ended it" in head
    assert page.piece("timeline").text.count("the trainer was killed by SIGKILL") == 4, "lost, queued, lost, failed"


@pytest.fixture
def starving(monkeypatch):
    """The kernel counts a kill for want of memory between any two looks."""
    counts = iter(range(1000))
    monkeypatch.setattr(memory, "kills", lambda: next(counts))


def test_what_the_kernel_killed_for_want_of_memory_says_so_and_a_button_tries_it_with_smaller_micro_batches(house, starving):
    run = house.submit(name="dies", max_attempts=1)["id"]
    work(house)
    stage = stage_of(house, run)
    assert (stage["reason"], stage["ended_because"]) == ("out_of_host_memory", "The machine ran out of memory")
    assert "The kernel killed the trainer because memory ran out" in stage["detail"]
    assert stage["suggestion"] == {"accumulation": 2}, "of one that could not say so itself, and has no device but the machine"
    assert "Retry with accumulation 1 → 2" in look(house, run).piece("head").text
    answer = house.launch.post(f"/runs/{run}/stages/resampler/retry-lighter")
    assert answer.status_code == 202
    told_again = answer.json()["stages"][0]
    assert told_again["overrides"] == {"accumulation": 2} and told_again["suggestion"] is None
    (attempt,) = house.read.get(f"/runs/{run}/attempts").json()
    assert (attempt["suggestion"], attempt["overrides"], attempt["exit_code"]) == ({"accumulation": 2}, {}, -9)


def test_of_one_whose_settings_this_version_does_not_know_nothing_is_suggested_and_its_page_still_tells(house, starving):
    run = house.submit(name="dies", max_attempts=1)["id"]
    work(house)
    with house.writing.begin() as session:
        row = session.get_one(Run, run)
        row.config = row.config | {"no_such_key": 1}
    assert stage_of(house, run)["suggestion"] is None
    assert "The machine ran out of memory." in look(house, run).piece("head").text


def test_while_a_job_waits_for_its_next_attempt_the_queue_says_how_the_last_one_ended(house, starving):
    run = house.submit(name="dies", max_attempts=1)["id"]
    work(house)
    house.launch.post(f"/runs/{run}/resume")
    (entry,) = house.read.get("/queue").json()
    assert (entry["status"], entry["ended_because"]) == ("queued", "The machine ran out of memory")
    assert "attempt 1: The machine ran out of memory" in look_at(house, "/queue")
    assert "Attempt 1: The machine ran out of memory." in look(house, run).piece("head").text


def look_at(house: House, path: str) -> str:
    return house.browser.get(path).text


def test_a_setting_that_this_version_does_not_know_is_named(house):
    run = house.submit(name="steady")["id"]
    with house.writing.begin() as session:
        row = session.get_one(Run, run)
        row.config = row.config | {"no_such_key": 1}
    with pytest.raises(BadInput, match="no_such_key"):
        work(house)
    stage = stage_of(house, run)
    assert (stage["status"], stage["reason"], stage["ended_because"]) == ("failed", "bad_config", "A setting cannot be")
    assert stage["detail"] == "no_such_key: there is no such setting."


def test_of_the_real_trainer_a_table_that_is_gone_is_a_missing_file(house):
    run = house.submit()["id"]
    Path(house.table).unlink()
    work(house, TRAINER)
    stage = stage_of(house, run)
    assert (stage["status"], stage["reason"]) == ("failed", "missing_file")
    assert stage["detail"].startswith(f"panollava: {house.table}: there is no such file.")


def test_of_the_real_trainer_a_model_that_is_not_here_is_named_and_the_command_line_says_what_to_do(house, tmp_path):
    run = house.submit(vision_model="nobody/no-such-model")["id"]
    work(house, TRAINER, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    stage = stage_of(house, run)
    assert (stage["status"], stage["reason"], stage["attempt"]) == ("failed", "hub_away", 1)
    head = look(house, run).piece("head").text
    assert "'nobody/no-such-model' is not on this machine, and the hub does not answer (HF_HUB_OFFLINE is set)." in head
    with serving(house.settings) as served:
        said = CliRunner().invoke(cli, ["runs", "--url", served.url, "--token", house.read.token, "show", str(run)])
    assert "resampler: Fetch it with `hf download` into the worker's cache" in " ".join(said.output.split())


def test_every_cause_and_every_other_end_that_a_worker_knows_has_words_and_a_hint_where_one_helps():
    assert set(Cause) <= set(told.WORDS) and set(Cause) <= set(told.HINTS)
    assert set(told.HINTS) <= set(told.WORDS)
