"""Ranks that look after each other: whichever ends, and however the others are held up, all end, and one says why."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.engine.test_command_line import wait_for

RANKS = """
import os, signal, sys, time
from pathlib import Path
from panollava import ranks
from panollava.training.fellows import Fellows
from panollava.training.stop import StopRequest

def tell(lost): Path(f"told-{ranks.local()}").write_text(str(lost))

stop = StopRequest(Path("."))
if ranks.is_first():
    stop.listen()
with Fellows(patience=0.2) as fellows:
    fellows.start(2)
    Path(f"pid-{ranks.local()}.part").write_text(str(os.getpid()))
    Path(f"pid-{ranks.local()}.part").rename(f"pid-{ranks.local()}")
    try:
        with fellows.watched(tell):
            exec(sys.argv[1 + ranks.local()])
    except Exception as error:
        tell(error)
        raise
"""
ASLEEP = "time.sleep(200)"


@contextmanager
def ranks(directory: Path, first: str, second: str) -> Iterator[subprocess.Popen[bytes]]:
    (directory / "ranks.py").write_text(RANKS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "ranks.py", first, second], cwd=directory, env=environment, start_new_session=True)
    try:
        wait_for(lambda: (directory / "pid-0").exists() and (directory / "pid-1").exists())
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pid(directory: Path, rank: int) -> int:
    return int((directory / f"pid-{rank}").read_text())


def is_gone(directory: Path, rank: int) -> bool:
    return not Path(f"/proc/{pid(directory, rank)}").exists()


def test_the_end_of_another_rank_ends_the_first_where_it_waits_for_ever(tmp_path: Path) -> None:
    with ranks(tmp_path, ASLEEP, ASLEEP) as first:
        os.kill(pid(tmp_path, 1), signal.SIGKILL)
        assert first.wait(60) == 1
    assert (tmp_path / "told-0").read_text() == f"Rank 1 of 2 (process {pid(tmp_path, 1)}) was killed by SIGKILL."


def test_an_error_that_another_rank_has_caused_names_that_rank(tmp_path: Path) -> None:
    hears_of_it = "while fellows._lost() is None: time.sleep(0.05)\nraise RuntimeError('Connection closed by peer')"
    with ranks(tmp_path, hears_of_it, "sys.exit(3)") as first:
        assert first.wait(60) == 1
    assert "Rank 1 of 2" in (tmp_path / "told-0").read_text()
    assert "ended with exit status 3" in (tmp_path / "told-0").read_text()


def test_an_error_of_its_own_keeps_its_name(tmp_path: Path) -> None:
    fails = "while not Path('pid-1').exists(): time.sleep(0.05)\nraise ValueError('mine')"
    with ranks(tmp_path, fails, ASLEEP) as first:
        assert first.wait(60) == 1
        assert is_gone(tmp_path, 1), "the other has nothing more to do"
    assert (tmp_path / "told-0").read_text() == "mine"


def test_the_end_of_the_first_rank_ends_the_other_which_speaks_for_it(tmp_path: Path) -> None:
    with ranks(tmp_path, ASLEEP, ASLEEP) as first:
        first.kill()
        first.wait()
        wait_for(lambda: is_gone(tmp_path, 1) and (tmp_path / "told-1").exists())
    assert (tmp_path / "told-1").read_text() == f"Process {first.pid}, which started rank 1, has ended."


def test_a_training_that_is_over_waits_for_the_other_rank_to_end_by_itself(tmp_path: Path) -> None:
    with ranks(tmp_path, "pass", "time.sleep(1); Path('finished').touch()") as first:
        assert first.wait(60) == 0
        assert (tmp_path / "finished").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_a_rank_listens_is_heard_when_it_does(tmp_path: Path, number: signal.Signals) -> None:
    hears = "time.sleep(1); stop.listen(); Path('heard').write_text(str(bool(stop)))"
    with ranks(tmp_path, ASLEEP, hears):
        os.kill(pid(tmp_path, 1), number)
        wait_for(lambda: (tmp_path / "heard").exists() and (tmp_path / "heard").read_text() != "")
    assert (tmp_path / "heard").read_text() == "True"
