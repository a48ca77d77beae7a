"""`panollava demo`: the main job from end to end, through the same API as everybody, and a verdict on what came of it.

Data, server and worker are made if they are missing and stopped at the end. What is promised is in `panollava.metrics.gates`.
"""

import contextlib
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app import follow, processes
from app.client import Client
from app.devices import all_devices
from app.errors import AppError
from app.follow import Board, Work
from app.i18n import _
from app.processes import Died, House
from app.report import write_report
from panollava.data.make_demo import RECIPE_FILE, make_demo
from panollava.metrics import table
from panollava.metrics.compare import Comparison
from panollava.metrics.gates import Gate, demo_gates
from panollava.metrics.report import Report

CONTROLS = ("blank", "shuffled", "rolled", "untrained", "query_swap")
COMPARED = ("resampler", "finetune")
"""Stages whose best checkpoints are evaluated; the first is the base."""
LOG_BYTES = 4000
SMALL_MODELS = {"OMP_NUM_THREADS": "1"}
"""Models as small as the demo's are slower on several contended threads."""


class Failed(Exception):
    """Something did not succeed; the message has the reason and the end of its log."""


@dataclass(frozen=True)
class Demo:
    """One demo while its house is up."""

    client: Client
    house: House
    data: Path
    console: Console

    def train(self, seed: int, board: Board) -> dict[str, Any]:
        """The chain, to its end. Raises Failed."""
        tables = {"csv_train": str(self.data / "train.csv"), "csv_val": str(self.data / "valid.csv")}
        asked = self.client.post("/runs", {"preset": "demo", "config": {"name": "demo", "seed": seed, **tables}})

        def stages() -> Sequence[Work]:
            return [Work.of(each["stage"], each) for each in self.client.get(f"/runs/{asked['id']}")["stages"]]

        follow.until_ended(stages, board, self.house.check)
        run: dict[str, Any] = self.client.get(f"/runs/{asked['id']}")
        if run["status"] != "succeeded":
            raise Failed(self._why(run))
        return run

    def _why(self, run: dict[str, Any]) -> str:
        stage = next(each for each in run["stages"] if each["status"] in follow.ENDED - {"succeeded"})
        log = self.client.get(f"/runs/{run['id']}/logs", stage=stage["stage"], tail=LOG_BYTES)["text"]
        return _failure(_("Stage {stage}").format(stage=stage["stage"]), stage, log)

    def evaluate(self, run: dict[str, Any], board: Board) -> list[dict[str, Any]]:
        """The best checkpoints on the test split, to their end. Raises Failed."""
        best = {each["stage"]: each["best_checkpoint_id"] for each in run["stages"]}
        asked = [
            self.client.post("/evaluations", {"name": stage, "checkpoint_id": best[stage], "config": config})["id"]
            for stage, config in self._evaluations().items()
        ]

        def evaluations() -> list[dict[str, Any]]:
            return [self.client.get(f"/evaluations/{each}") for each in asked]

        def works() -> Sequence[Work]:
            return [Work.of(_("evaluate {name}").format(name=each["name"]), each) for each in evaluations()]

        follow.until_ended(works, board, self.house.check)
        for each in (ended := evaluations()):
            if each["status"] != "succeeded":
                raise Failed(_failure(_("Evaluation of {name}").format(name=each["name"]), each, each["detail"] or ""))
        return ended

    def _evaluations(self) -> dict[str, dict[str, Any]]:
        """Both stages answer the test split; the end of the chain also shows that it looks."""
        config = {"csv": str(self.data / "test.csv"), "batch_size": 256, "max_new_tokens": 32}
        return {stage: config | {"controls": CONTROLS if stage == COMPARED[-1] else ()} for stage in COMPARED}

    def verdict(self, run: dict[str, Any], evaluations: Sequence[dict[str, Any]]) -> bool:
        """Print the comparison, the promises and where everything lies, and write the same as a page; whether every promise is kept."""
        ids = [str(each["id"]) for each in evaluations]
        comparison = Comparison.model_validate(self.client.get("/comparisons", ids=",".join(ids), base=ids[0]))
        compared, promises = table.rows(comparison), gates(*(each["metrics"] for each in evaluations))
        kept = all(gate.ok for gate in promises)
        _print_table(self.console, _("Comparison on {n} questions").format(n=comparison.questions), compared)
        _print_table(self.console, _("What the demo promises"), gate_rows(promises))
        report = self.data.parent / "report.html"
        places = {_("data"): self.data, _("run"): run["directory"]}
        places |= {f"{_('evaluation')} {each['name']}": each["directory"] for each in evaluations}
        write_report(report, comparison=compared, promises=gate_rows(promises), kept=kept, places=places)
        for name, place in {**places, _("this as a page"): report}.items():
            self.console.print(f"{name:24} {place}", highlight=False, soft_wrap=True)
        return kept


def run(directory: Path, *, headless: bool, seed: int) -> int:
    """Exit status: 0 if everything succeeded and every promise is kept, else 1 with the reason. Raises BadInput for a directory that is not ours."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception it still lets the house be taken down
    console = Console(width=None if sys.stdout.isatty() else 160)
    directory = directory.resolve()
    try:
        make_data(directory / "data", console)
        settings = processes.private(directory / "home", roots=[directory])
        with processes.running(settings, all_devices()[:1], SMALL_MODELS) as house, Client(house.url, house.token) as client:
            try:
                kept, compared = _main_job(Demo(client, house, directory / "data", console), seed)
                if not headless:
                    _leave_open(house, compared, console)
            finally:
                console.print(_("Stopping what was started."))
                for impatience in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(impatience, signal.SIG_IGN)
    except (Died, Failed, AppError) as error:
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        return 1
    console.print(_("Every promise is kept.") if kept else _("A promise is not kept; see the table."))
    return 0 if kept else 1


def make_data(data: Path, console: Console) -> None:
    """Render the demo's panoramas unless they are there."""
    if (data / RECIPE_FILE).exists():
        return
    console.print(_("Rendering panoramas into {directory}").format(directory=data), soft_wrap=True)
    with Progress(console=console) as bar:
        task = bar.add_task(_("panoramas"), total=None)
        make_demo(data, on_progress=lambda done, total: bar.update(task, completed=done, total=total))


def gates(resampler: dict[str, Any], finetune: dict[str, Any]) -> list[Gate]:
    """The demo's promises, from the two evaluations' metrics."""
    before, after = (Report.model_validate({field: metrics[field] for field in Report.model_fields}) for metrics in (resampler, finetune))
    return demo_gates(before.grounding, after.grounding, finetune["chance"])


def gate_rows(gates: Sequence[Gate]) -> list[list[str]]:
    """Header and a row per promise, for a table."""
    rows = [["", "n", _("value"), "", _("bound"), ""]]
    for gate in gates:
        value = "-" if gate.value is None else f"{gate.value:.4g}"
        rows.append([gate.name, str(gate.n), value, gate.relation, f"{gate.bound:.4g}", _("kept") if gate.ok else _("NOT KEPT")])
    return rows


def _main_job(demo: Demo, seed: int) -> tuple[bool, str]:
    """Train, evaluate, report; whether every promise is kept, and the page of the comparison."""
    began = time.monotonic()
    with follow.board(demo.console) as board:
        run = demo.train(seed, board)
        evaluations = demo.evaluate(run, board)
    kept = demo.verdict(run, evaluations)
    demo.console.print(_("Took {minutes:.1f} minutes.").format(minutes=(time.monotonic() - began) / 60))
    return kept, f"/evals/compare?ids={','.join(str(each['id']) for each in evaluations)}"


def _leave_open(house: House, page: str, console: Console) -> None:
    """The dashboard with the finished comparison, in a browser where this machine has one to show, else as a link."""
    console.print(_("The dashboard is open at the finished comparison until Ctrl-C. Sign in there, once, within ten minutes:"))
    console.print(f"  {house.link(page)}", highlight=False, soft_wrap=True)
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(house.link(page))
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            house.check()
            time.sleep(1)


def _failure(what: str, told: dict[str, Any], log: str) -> str:
    text = _("{what} has {status}: {reason}. {detail}\nThe end of its log:\n{log}")
    return text.format(what=what, status=told["status"], reason=told["reason"], detail=told["detail"] or "", log=log)


def _print_table(console: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    drawn = Table(*rows[0], title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows[1:]:
        drawn.add_row(*row)
    console.print()
    console.print(drawn)
