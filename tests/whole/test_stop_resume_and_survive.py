"""The real house with the real trainer: stop saves in time, resume goes on from there, and the trainer of a killed worker is adopted."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import demo, processes
from app.client import Client
from app.processes import House

LONG = {"resampler": {"epochs": 500, "batch_size": 4, "save_every_steps": 5}}


@pytest.fixture
def house(tmp_path: Path, demo_data: Path) -> Iterator[House]:
    with processes.running(processes.private(tmp_path / "home", [demo_data]), ["cpu"], demo.SMALL_MODELS) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(house.url, house.token) as client:
        yield client


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)
    return result


def launch(client: Client, data: Path, stage: str = "resampler", **stages: Any) -> str:
    config = {"stage": stage, "data_dir": str(data), "stages": stages}
    return f"/runs/{client.post('/runs', {'preset': 'demo', 'config': config})['id']}"


def steps(client: Client, run: str) -> list[int]:
    """Steps of the losses that the chart shows, attempt after attempt."""
    lines = client.get(f"{run}/metrics", names="train_loss", points=5000)
    return [step for line in sorted(lines, key=lambda line: line["attempt"]) for step in line["buckets"]["last_step"]]


def at_step(client: Client, run: str, step: int) -> Callable[[], bool]:
    return lambda: (client.get(run)["stages"][0]["step"] or 0) >= step and client.get(run)["stages"][0]["status"] == "running"


def test_a_stop_saves_within_15_seconds_and_resume_continues_from_it(client: Client, demo_data: Path) -> None:
    run = launch(client, demo_data, **LONG)
    wait_for(at_step(client, run, 3), "the third step")
    asked = time.monotonic()
    client.post(f"{run}/stop", {})
    wait_for(lambda: client.get(run)["status"] == "stopped", "the stop", 15)
    assert time.monotonic() - asked < 15
    saved = max(each["step"] for each in client.get(f"{run}/checkpoints")["items"])
    assert str(saved) in client.get(run)["stages"][0]["detail"]
    client.post(f"{run}/resume", {})
    wait_for(at_step(client, run, saved + 2), "two more steps")
    client.post(f"{run}/stop", {})
    wait_for(lambda: client.get(run)["status"] == "stopped", "the second stop")
    seen = steps(client, run)
    assert seen == list(range(1, len(seen) + 1)), "no step is missing and none is shown twice"


def test_a_run_whose_worker_is_killed_says_so_and_its_trainer_goes_on_with_the_worker_that_starts_again(
    client: Client, house: House, demo_data: Path, tmp_path: Path
) -> None:
    run = launch(client, demo_data, **LONG)
    wait_for(at_step(client, run, 6), "the first checkpoint")
    worker = house.children[1]
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    wait_for(lambda: client.get(run)["is_lost"], "the run to be called lost", 45)
    environment = os.environ | {"PANOLLAVA_HOME": str(tmp_path / "home"), "PANOLLAVA_ROOTS": str(demo_data), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "second.log").open("wb") as log:
        second = subprocess.Popen([sys.executable, "-m", "worker", "--name", "second", "--devices", "cpu"], env=environment, stdout=log, stderr=log)
        try:
            started = time.monotonic()
            wait_for(lambda: not client.get(run)["is_lost"], "the trainer to be adopted")
            print(f"adopted {time.monotonic() - started:.1f} s after the new worker was started")
            before = max(steps(client, run))
            wait_for(at_step(client, run, before + 2), "more steps")
            client.post(f"{run}/stop", {})
            wait_for(lambda: client.get(run)["status"] == "stopped", "the stop")
        finally:
            second.terminate()
            second.wait(60)
    assert client.get(run)["stages"][0]["attempt"] == 1
    seen = steps(client, run)
    assert seen == list(range(1, len(seen) + 1))
    (events,) = tmp_path.rglob("attempt-1/events.jsonl")
    written = [json.loads(line)["step"] for line in events.open() if '"train_loss"' in line]
    assert seen == written
    assert "adopted" in [each["reason"] for each in client.get(f"{run}/timeline")]


def test_the_next_stage_starts_by_itself_from_the_best_checkpoint_and_the_last_is_exported(client: Client, demo_data: Path) -> None:
    short = {"max_steps": 2, "batch_size": 8}
    run = launch(client, demo_data, "all", vision=short, resampler=short, finetune=short)
    wait_for(lambda: client.get(run)["status"] in ("succeeded", "failed"), "the chain", 180)
    stages = client.get(run)["stages"]
    assert [stage["status"] for stage in stages] == ["succeeded"] * 3
    paths = {each["id"]: each["path"] for each in client.get(f"{run}/checkpoints", limit=100)["items"]}
    for before, after in itertools.pairwise(stages):
        assert after["init_checkpoint"] == paths[before["best_checkpoint_id"]]
    export = f"/checkpoints/{stages[-1]['best_checkpoint_id']}/export"
    client.post(export, {})
    wait_for(lambda: client.get(export)["status"] in ("succeeded", "failed"), "the export", 180)
    exported = client.get(export)
    assert exported["status"] == "succeeded", exported["detail"]
    directory = Path(exported["directory"])
    assert directory.is_relative_to(client.get(run)["directory"])
    assert {"config.json", "model.safetensors", "README.md"} <= {path.name for path in directory.iterdir()}
