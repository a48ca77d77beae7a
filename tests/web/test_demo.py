"""The demo's parts, and its house brought up and taken down for real. The whole of it is `make demo`."""

import io
import re
import time

import httpx
import pytest
from rich.console import Console

from app import demo, processes
from app.client import Client
from app.follow import Bars, Lines, Work, board, until_ended
from app.processes import Died
from panollava.data.make_demo import make_demo
from panollava.errors import BadInput
from panollava.metrics.captions import Prediction
from panollava.metrics.grounding import read_grounding, read_truth
from panollava.metrics.report import report


def work(status, name="vision", note=None, **progress):
    return Work(name, status, note, progress)


RUNNING = work("running", done=1, total=4, unit="steps", eta_seconds=63)


@pytest.fixture
def printed():
    return io.StringIO()


def test_a_log_gets_a_line_when_a_status_changes_and_not_at_every_look(printed):
    lines = Lines(Console(file=printed, width=160))
    for each in (work("queued", note="behind 1 job"), work("queued", note="behind 1 job"), RUNNING, RUNNING):
        lines.show(each)
    assert [line.split(maxsplit=1)[1] for line in printed.getvalue().splitlines()] == [
        f"{'vision':24} {'queued':10} behind 1 job", f"{'vision':24} {'running':10} {'1/4 steps':20} 0:01:03 left",
    ]  # fmt: skip


def test_a_terminal_gets_bars_with_what_is_left(printed):
    with board(Console(file=printed, width=160, force_terminal=True)) as shown:
        assert isinstance(shown, Bars)
        shown.show(RUNNING)
        shown.show(work("succeeded", done=4, total=4, unit="steps", eta_seconds=0))
    assert "1/4 steps" in printed.getvalue() or "4/4 steps" in printed.getvalue()


def test_work_is_watched_until_none_of_it_goes_on(printed, monkeypatch):
    monkeypatch.setattr("app.follow.ASK_SECONDS", 0)
    told = iter([[work(status), work("waiting", "finetune")] for status in ("queued", "running", "failed")])
    ended = until_ended(lambda: next(told), Lines(Console(file=printed)), lambda: None)
    assert [each.status for each in ended] == ["failed", "waiting"]


def test_demo_data_that_is_there_is_left_alone_and_other_data_too(tmp_path, printed):
    make_demo(tmp_path / "data", train=1, valid=1, test=1)
    before = (tmp_path / "data" / "train.csv").stat().st_mtime_ns
    demo.make_data(tmp_path / "data", Console(file=printed))
    assert (tmp_path / "data" / "train.csv").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("url,query,annotation\n")
    with pytest.raises(BadInput, match="mine: holds something"):
        demo.make_data(tmp_path / "mine", Console(file=printed))


def test_the_promises_are_judged_by_the_evaluations_figures(tmp_path):
    make_demo(tmp_path / "data", train=1, valid=1, test=3)
    figures = read_grounding(tmp_path / "data" / "grounding.json").figures
    truth = read_truth(tmp_path / "data" / "test.truth.jsonl", figures)

    def metrics(answer):
        answers = [
            Prediction(prediction=answer(each), references=["r"], **each.model_dump(include={"url", "query", "kind", "template", "expect"}))
            for each in truth
        ]
        return report(answers, figures).model_dump(mode="json") | {"chance": {"colour": 0.2, "shape": 0.2, "direction": 0.3}}

    gates = {gate.name: gate for gate in demo.gates(metrics(lambda each: ""), metrics(lambda each: " ".join(each.expect.values())))}
    assert gates["colour: right after the chain"].value == 1 and gates["colour: right after the chain"].ok
    assert not gates["colour: questions"].ok
    rows = demo.gate_rows(list(gates.values()))
    assert len({len(row) for row in rows}) == 1 and any("NOT KEPT" in row for row in rows)


def test_a_house_comes_up_with_a_worker_and_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("PANOLLAVA_DATABASE_URL", "postgresql://not.this.one/")
    with (
        processes.running(processes.private(tmp_path / "home", [tmp_path]), ["cpu"], demo.SMALL_MODELS) as house,
        Client(house.url, house.token) as client,
    ):
        while not (workers := client.get("/workers")):
            house.check()
            time.sleep(0.1)
        assert workers[0]["is_alive"]
        server, worker = house.children
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(Died, match=r"The worker-cpu has ended with exit status -9\. The end of .*worker-cpu\.log"):
            house.check()
    assert server.process.returncode == 0


def test_the_demo_ends_with_a_link_to_the_finished_comparison(tmp_path, printed, monkeypatch):
    """The link is followed as a browser would; Ctrl-C then ends the demo."""

    def interrupt(_house):
        raise KeyboardInterrupt

    with processes.running(processes.private(tmp_path / "home", [tmp_path]), []) as house:
        monkeypatch.setattr(processes.House, "check", interrupt)
        demo._leave_open(house, "/evals/compare?ids=1,2", Console(file=printed, width=300))
        assert "open at the finished comparison" in printed.getvalue()
        link = next(line.strip() for line in printed.getvalue().splitlines() if "/sign-in?" in line)
        browser = httpx.Client(headers={"Accept": "text/html", "Origin": house.url}, base_url=house.url, timeout=30)
        form = browser.get(link, follow_redirects=True)
        answer = browser.post("/sign-in", data={"next": re.search(r'name="next" value="([^"]+)"', form.text)[1]})
        assert answer.headers["location"] == "/evals/compare?ids=1,2"


def test_a_house_that_does_not_come_up_says_why(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "panollava.db").write_text("this is no database, whatever its name says, and long enough to be looked at" * 10)
    with (
        pytest.raises(Died, match="file is not a database"),
        processes.running(processes.private(tmp_path / "home", [tmp_path]), ["cpu"], demo.SMALL_MODELS),
    ):
        pass
