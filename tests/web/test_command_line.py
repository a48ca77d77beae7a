"""The console script as its user runs it: real processes, a real port."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.client import ApiError
from tests.tables import write_table

HEAVY = ("torch", "celery", "sqlalchemy", "fastapi", "transformers", "httpx")


def environment(home, **more):
    return os.environ | {"PANOLLAVA_HOME": str(home), "PANOLLAVA_ROOTS": str(home), "COLUMNS": "200"} | more


def panollava(home, *arguments, **more):
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, check=False, env=environment(home, **more), capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_table(home, "train")
    return home


@pytest.fixture(scope="module")
def server(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "app.cli", "server", "--port", str(port)], env=environment(home), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not answers(f"{url}/readyz"):
            assert process.poll() is None and time.monotonic() < deadline, (home / "server.log").read_text()
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def token(home, server):
    return panollava(home, "token", "create", "script").stdout.strip()


@pytest.fixture(scope="module")
def remote(server, token):
    """A remote command's output, from this process: starting one each time is slow."""

    def run(*arguments):
        return CliRunner().invoke(cli, arguments, env={"PANOLLAVA_URL": server[1], "PANOLLAVA_TOKEN": token}, catch_exceptions=False).stdout

    return run


def answers(url):
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_help_names_our_commands_and_the_trainer_s_and_imports_nothing_heavy(home):
    code = f"import sys; from app.cli import cli; cli(['--help'], standalone_mode=False); print([name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], check=False, env=environment(home), capture_output=True, text=True).stdout
    assert all(f" {command} " in told for command in ("train", "evaluate", "data", "server", "worker", "demo", "token", "runs", "evals"))
    assert told.splitlines()[-1] == "[]"


def test_a_token_is_printed_alone_and_once(home, token):
    assert token.startswith("pl_") and "\n" not in token
    listed = panollava(home, "token", "list").stdout
    assert "script" in listed and "launch" in listed and token not in listed


def test_runs_are_listed_shown_stopped_and_resumed(home, server, token, remote):
    body = {"config": {"csv_train": str(home / "train.csv"), "csv_val": str(home / "train.csv"), "stage": "vision"}}
    run = httpx.post(f"{server[1]}/api/v1/runs", json=body, headers={"Authorization": f"Bearer {token}"}).json()
    assert "queued" in remote("runs", "list")
    assert [each["id"] for each in json.loads(remote("runs", "list", "--json"))] == [run["id"]]
    assert remote("runs", "stop", str(run["id"])) == "vision: stopped. Nothing was saved: it would begin at its start.\n"
    assert json.loads(remote("runs", "show", str(run["id"]), "--json"))["status"] == "stopped"
    remote("runs", "resume", str(run["id"]))
    assert "vision" in remote("runs", "show", str(run["id"]))


def test_checkpoints_and_evaluations_are_listed(remote):
    assert json.loads(remote("checkpoints", "list", "--json")) == []
    assert json.loads(remote("evals", "list", "--json")) == []


def test_what_cannot_be_had_is_one_message_and_exit_status_2(home):
    refused = panollava(home, "runs", "list", PANOLLAVA_URL="http://127.0.0.1:1", PANOLLAVA_TOKEN="pl_x")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("No server answers at http://127.0.0.1:1") and refused.stderr.count("\n") == 1


def test_a_refusal_of_the_server_is_told_in_its_words(remote):
    with pytest.raises(ApiError, match=r"^There is no run 99\.$"):
        remote("runs", "show", "99")


def test_a_revoked_token_is_refused(home, remote):
    assert panollava(home, "token", "revoke", "1").returncode == 0
    with pytest.raises(ApiError, match="revoked"):
        remote("runs", "list")


def test_the_server_ends_when_it_is_told_to_and_takes_its_broker_along(home, server):
    process, _url = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert not (home / "redis").exists() or "bye bye" in (home / "redis" / "redis.log").read_text()
