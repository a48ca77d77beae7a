"""`panollava up` for real: one command, one link, one Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.processes import free_port


@pytest.fixture
def up(tmp_path):
    """Starts it with these arguments; whatever is left at the end is ended."""
    started = []

    def start(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PANOLLAVA_")}
        environment |= {"PANOLLAVA_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-P", "-m", "app.cli", *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background deaf to Ctrl-C, children too
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def link_in(process):
    for line in process.stdout:
        if found := re.search(r"http://\S+/sign-in\?key=\S+", line):
            return found[0]
    raise AssertionError("no link was printed")


def follow(link):
    """What a browser does with a link; the form behind it is sent."""
    client = httpx.Client(headers={"Accept": "text/html", "Origin": link.split("/sign-in")[0]}, base_url=link.split("/sign-in")[0], timeout=30)
    client.get(link)
    return client, client.post("/sign-in")


def test_up_prints_a_link_that_signs_in_and_ctrl_c_ends_everything(up, tmp_path):
    port = free_port()
    process = up("up", "--port", str(port))
    client, answer = follow(link_in(process))
    assert answer.status_code == 303
    workers = client.get("/api/v1/workers").json()
    assert [each["devices"] for each in workers] in ([], [["cpu"]])  # it is up before its worker has joined
    log = tmp_path / "home" / "server.log"
    assert "/sign-in?..." in log.read_text() and "key=" not in log.read_text()
    another, _ = up("link").communicate(timeout=60)
    assert another.startswith(f"http://127.0.0.1:{port}/sign-in?key=")  # where this home's server is, not where it usually would be
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Stopping" in rest
    with pytest.raises(httpx.ConnectError):
        client.get("/healthz")


def test_what_ends_by_itself_is_started_again(up, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a short life is longer than this test has patience for
    (tmp_path / "sitecustomize.py").write_text("import app.processes\napp.processes.SHORT_LIFE_SECONDS = 0\n")
    process = up("up", "--port", str(free_port()))
    client, _ = follow(link_in(process))
    while not client.get("/api/v1/workers").json():
        time.sleep(0.2)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    worker = next(pid for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    before = client.get("/api/v1/workers").json()[0]["started_at"]
    os.kill(worker, signal.SIGKILL)
    line = next(line for line in process.stdout if "is started again" in line)
    assert "The worker-cpu has ended with exit status -9" in line
    while (again := client.get("/api/v1/workers").json()[0])["started_at"] == before:
        time.sleep(0.2)
    assert again["is_alive"]


def test_link_prints_another_one_for_the_same_installation(up):
    first, second = (up("link").communicate(timeout=60)[0].strip() for _ in range(2))
    assert first.startswith("http://127.0.0.1:7360/sign-in?key=") and second != first


def test_a_port_in_use_is_named_before_anything_is_started(up):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = up("up", "--port", str(port))
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"port {port}" in printed and "--port takes another one" in printed
