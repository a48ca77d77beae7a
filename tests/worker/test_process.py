"""A trainer's process: behind its gate, in a session of its own, recognised, stopped with growing force."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from panollava.events import STOP_FILE
from worker import process
from worker.process import Child, Identity, Patience, Stopping

SAYS_WHAT_IT_SEES = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.getsid(0) == os.getpid())"
WAITS_FOR_STOP = "import os, time\nwhile not os.path.exists('{}'): time.sleep(0.01)"
IGNORES_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
HAS_A_CHILD = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)"
DIES_BEFORE_GO = """
import os, pathlib, sys
from worker import process
child = process.start(["touch", sys.argv[1] + "/trained"], pathlib.Path(sys.argv[1]), ["cpu"], os.environ)
print(child.identity.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def python(code: str, directory: Path, devices: tuple[str, ...] = ("cpu",)) -> Child:
    return process.start([sys.executable, "-c", code], directory, devices, os.environ)


def wait(child: Child, seconds: float = 30) -> int:
    deadline = time.monotonic() + seconds
    while (code := child.poll()) is None:
        assert time.monotonic() < deadline, "the process did not end"
        time.sleep(0.01)
    return code


def until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def output(directory: Path) -> str:
    return (directory / process.OUTPUT_FILE).read_text()


@pytest.mark.parametrize(("devices", "seen"), [(("0", "1"), "0,1"), (("cpu",), "")])
def test_a_trainer_sees_only_the_workers_devices(tmp_path, devices, seen):
    child = python(SAYS_WHAT_IT_SEES, tmp_path, devices)
    child.go()
    assert wait(child) == 0
    assert output(tmp_path) == f"{seen} True\n"


def test_a_trainer_does_nothing_before_go(tmp_path):
    child = python("print('trained')", tmp_path)
    time.sleep(0.1)
    assert child.poll() is None and output(tmp_path) == ""
    child.go()
    assert wait(child) == 0 and output(tmp_path) == "trained\n"


def test_a_trainer_whose_worker_dies_before_go_never_trains(tmp_path):
    worker = subprocess.run([sys.executable, "-c", DIES_BEFORE_GO, tmp_path], stdout=subprocess.PIPE, text=True, check=False)
    until(lambda: not Path(f"/proc/{worker.stdout.strip()}/cwd").exists())
    assert not (tmp_path / "trained").exists()


def test_an_identity_is_not_mistaken_for_a_later_process_of_the_same_pid():
    mine = Identity.of(os.getpid())
    assert mine.alive and mine.here
    assert not Identity(mine.pid, mine.started - 1, mine.boot_id).alive
    assert not Identity(mine.pid, mine.started, "another boot").here


def test_a_zombie_is_dead():
    child = subprocess.Popen(["sleep", "60"])
    identity = Identity.of(child.pid)
    child.kill()
    until(lambda: not identity.alive)
    child.wait()


def test_a_stop_file_is_enough_for_a_trainer_that_looks(tmp_path):
    child = python(WAITS_FOR_STOP.format(tmp_path / STOP_FILE), tmp_path)
    child.go()
    stopping = Stopping(child.identity, tmp_path, Patience(term_after=30, kill_after=30))
    stopping.press()
    assert wait(child) == 0
    assert not stopping.killed


def test_one_that_does_not_look_gets_sigterm(tmp_path):
    child = python("import time; time.sleep(60)", tmp_path)
    child.go()
    stopping = Stopping(child.identity, tmp_path, Patience(term_after=0, kill_after=30))
    stopping.press()
    assert wait(child) == -signal.SIGTERM
    assert not stopping.killed


def test_one_that_ignores_sigterm_is_killed_later(tmp_path, monkeypatch):
    child = python(IGNORES_TERM, tmp_path)
    child.go()
    until(lambda: output(tmp_path) == "ready\n")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: clock.now))
    stopping = Stopping(child.identity, tmp_path, Patience(term_after=1, kill_after=2))
    clock.now = 1.0
    stopping.press()
    time.sleep(0.1)
    assert child.poll() is None and not stopping.killed
    clock.now = 3.0
    stopping.press()
    assert wait(child) == -signal.SIGKILL
    assert stopping.killed


def test_a_trainers_own_children_end_with_it(tmp_path):
    child = python(HAS_A_CHILD, tmp_path)
    child.go()
    until(lambda: output(tmp_path).endswith("\n"))
    grandchild = Identity.of(int(output(tmp_path)))
    os.kill(child.identity.pid, signal.SIGKILL)
    wait(child)
    until(lambda: not grandchild.alive)
