"""A worker that owns two devices, with the real trainer: one run in two processes, on the same path as any other."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app import demo, processes
from app.client import Client


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)
    return result


def trainers(home: Path) -> set[str]:
    """Processes that train below this directory, by their numbers."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = path.read_bytes().split(b"\0")
            if {b"panollava", b"panollava.__main__"} & set(words) and any(word.startswith(bytes(home)) for word in words):
                found.add(path.parent.name)
    return found


def test_a_run_of_two_devices_trains_in_two_processes_and_its_stop_ends_both(demo_data: Path, tmp_path: Path) -> None:
    home, stages = tmp_path / "home", {"resampler": {"epochs": 500, "batch_size": 4}}
    with processes.running(processes.private(home, [demo_data]), ["cpu,cpu"], demo.SMALL_MODELS) as house, Client(house.url, house.token) as client:
        config = {"stage": "resampler", "data_dir": str(demo_data), "devices": 2, "stages": stages}
        run = f"/runs/{client.post('/runs', {'preset': 'demo', 'config': config})['id']}"

        def steps() -> list[int]:
            return [step for line in client.get(f"{run}/metrics", names="train_loss", points=5000) for step in line["buckets"]["last_step"]]

        wait_for(lambda: len(steps()) >= 3 or client.get(run)["status"] == "failed", "the third step")
        assert len(trainers(home)) == 2, client.get(run)["stages"]
        client.post(f"{run}/stop", {})
        wait_for(lambda: client.get(run)["status"] == "stopped", "the stop")
        assert trainers(home) == set()
        seen = steps()
        assert seen == list(range(1, len(seen) + 1))
        assert max(each["step"] for each in client.get(f"{run}/checkpoints")["items"]) == seen[-1]
        written = [json.loads(line)["step"] for path in home.rglob("events.jsonl") for line in path.open() if '"train_loss"' in line]
        assert written == seen, "each step was written once"
