"""Watch work on a server until it has ended: bars with ETA on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.i18n import _

ASK_SECONDS = 0.5
LINE_SECONDS = 15.0
"""Between two lines about one piece of work whose status stays the same."""
AT_WORK = {"starting", "running", "stopping"}
ENDED = {"succeeded", "failed", "stopped"}


@dataclass(frozen=True)
class Work:
    """A stage or an evaluation, as the API tells it."""

    name: str
    status: str
    note: str | None
    progress: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, told: Mapping[str, Any]) -> "Work":
        return cls(name, told["status"], told["waiting_because"], told["progress"])

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def counted(self) -> str:
        """`120/375 steps`, or why there is nothing to count yet."""
        if not self.progress:
            return self.note or ""
        return f"{self.progress['done']}/{self.progress['total']} {self.progress['unit']}"

    @property
    def eta(self) -> str:
        seconds = self.progress.get("eta_seconds")
        return "" if self.ended or seconds is None else _("{time} left").format(time=timedelta(seconds=round(seconds)))


class Board(Protocol):
    """Where work is shown."""

    def show(self, work: Work) -> None: ...


class Lines:
    """One line when a status changes, and now and then in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[str, float]] = {}

    def show(self, work: Work) -> None:
        now = time.monotonic()
        status, since = self._shown.get(work.name, ("", 0.0))
        if work.status == status and (status not in AT_WORK or now - since < LINE_SECONDS):
            return
        self._shown[work.name] = work.status, now
        self._console.print(f"{time.strftime('%H:%M:%S')}  {work.name:24} {work.status:10} {work.counted:20} {work.eta}".rstrip(), highlight=False)


class Bars:
    """One bar for each piece of work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, work: Work) -> None:
        if work.name not in self._tasks:
            self._tasks[work.name] = self._progress.add_task(work.name, start=False, total=None, status="", counted="", eta="")
        task = self._tasks[work.name]
        if work.progress:
            self._progress.start_task(task)
        done, total = work.progress.get("done", 0), work.progress.get("total")
        self._progress.update(task, completed=done, total=total, status=work.status, counted=work.counted, eta=work.eta)
        if work.ended:
            self._progress.stop_task(task)


@contextmanager
def board(console: Console) -> Iterator[Board]:
    """Bars where somebody watches, else lines."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("{task.description:24} {task.fields[status]:10}"), BarColumn(), TextColumn("{task.fields[counted]}"))
    with Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[eta]}"), console=console) as progress:
        yield Bars(progress)


def until_ended(ask: Callable[[], Sequence[Work]], board: Board, check: Callable[[], None]) -> Sequence[Work]:
    """Show the work until none of it goes on: all has ended, or what failed keeps the rest waiting. `check` may raise."""
    while True:
        works = ask()
        for work in works:
            board.show(work)
        if all(work.ended or work.status == "waiting" for work in works):
            return works
        check()
        time.sleep(ASK_SECONDS)
