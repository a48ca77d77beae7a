"""docs/deploy.md without its servers: what it installs, what a reader puts in, and systemd's files, which systemd reads where it is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import page

SERVER, WORKER = "panollava-server.service", "panollava-worker@.service"


def test_it_installs_this_checkout_with_what_an_object_store_needs():
    assert "pip install --constraint constraints.txt '.[s3]'" in page.blocks()["on both"]
    assert "pip install 'panollava" not in page.PAGE.read_text(), "no index has it"


def test_a_stop_and_a_crash_end_the_worker_alone_so_that_its_trainer_survives():
    told = page.service(WORKER)
    assert (told["KillMode"], told["OOMPolicy"]) == ("process", "continue")


def test_both_are_brought_back_by_systemd_with_the_settings_of_the_page():
    for name in (SERVER, WORKER):
        told = page.service(name)
        assert (told["Restart"], int(told["RestartSec"]) > 0, told["User"]) == ("always", True, "panollava")
        assert told["EnvironmentFile"] in page.blocks()["on gpu1: settings"] and told["WorkingDirectory"] in page.blocks()["on gpu1: settings"]


def test_a_worker_has_time_to_save_its_run_before_it_is_killed():
    assert int(page.service(WORKER)["TimeoutStopSec"]) >= 2 * page.DRAIN_SECONDS


def test_systemd_finds_nothing_wrong_with_them(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    for name, text in page.units().items():  # which programs there are it looks for itself
        (tmp_path / name).write_text(text.replace("/opt/panollava/bin", str(Path(sys.executable).parent)))
    units = [tmp_path / SERVER, tmp_path / WORKER.replace("@", "@0")]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "panollava" in line]) == (0, [])
