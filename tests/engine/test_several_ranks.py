"""One training in two processes: the same samples a step, the same losses, one set of files, one decision."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from panollava import events, rundir
from panollava.config import RunConfig
from panollava.events import Metric, StageEvent
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest
from tests.engine.test_command_line import wait_for

SHARED = ["--devices", "2", "--log-dir", "logs"]


@pytest.fixture(scope="module")
def shared(config: RunConfig) -> RunConfig:
    """The last step of each epoch and the last validation batch do not divide by two."""
    both = {
        "vision": config.stages.vision.model_copy(update={"max_steps": 2, "epochs": 2, "batch_size": 32, "accumulation": 2}),
        "resampler": config.stages.resampler.model_copy(update={"max_steps": 4, "epochs": 2, "batch_size": 50}),
    }
    return config.model_copy(update={"stages": config.stages.model_copy(update=both), "stage": (Stage.vision, Stage.resampler)})


def metrics(directory: Path, name: str) -> dict[int, float]:
    told = (event for _, event in events.read(directory / events.EVENTS_FILE))
    return {event.step: event.values[name] for event in told if isinstance(event, Metric) and name in event.values}


def command(config: RunConfig, cwd: Path) -> list[str]:
    (cwd / "run.json").write_text(config.model_dump_json())
    return ["-m", "panollava", "train", "--config", "run.json", *SHARED]


def test_two_processes_take_the_steps_of_one_and_write_one_set_of_files(shared: RunConfig, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, *command(shared, tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    init_from = None
    for stage in shared.stage:
        alone, together = tmp_path / "alone" / stage, tmp_path / "runs" / f"vlm_{stage}"
        train_stage(StageJob(shared, stage, alone, init_from), StopRequest(alone))
        init_from = together / "checkpoints" / "best.ckpt"
        for name in ("train_loss", "grad_norm", "val_loss"):
            assert metrics(together, name) == pytest.approx(metrics(alone, name), rel=1e-4), (stage, name)
        words = [event.status for _, event in events.read(together / events.EVENTS_FILE) if isinstance(event, StageEvent)]
        assert words == ["started", "succeeded"]
    assert len(list((tmp_path / "logs").iterdir())) == 3
    assert done.stdout.count("stage vision: ") == 1


def test_a_stop_on_any_rank_stops_all_at_one_step_and_the_death_of_one_ends_all(shared: RunConfig, tmp_path: Path) -> None:
    endless = shared.stages.resampler.model_copy(update={"max_steps": None, "epochs": 200, "batch_size": 4})
    config = shared.model_copy(update={"stage": (Stage.resampler,), "stages": shared.stages.model_copy(update={"resampler": endless})})
    directory = tmp_path / "runs" / "vlm_resampler"

    assert ended(command(config, tmp_path), directory, signal.SIGTERM) == 75
    stopped = outcome(directory)
    assert (stopped.status, stopped.step) == ("stopped", max(metrics(directory, "train_loss")))
    assert rundir.verify(directory / "checkpoints" / "last.ckpt").step == stopped.step

    assert ended([*command(config, tmp_path), "--resume", "auto"], directory, signal.SIGKILL) == 1
    assert max(metrics(directory, "train_loss")) > stopped.step, "it went on from where both had stopped"
    lost = outcome(directory)
    assert (lost.status, lost.reason) == ("failed", "RankLost")
    assert "Rank 1 of 2" in str(lost.detail)
    assert "was killed by SIGKILL" in str(lost.detail)


def ended(words: list[str], directory: Path, by: signal.Signals) -> int:
    """Start a training in two processes, let it take steps, send a signal to the second process; how the first one leaves."""
    before = len(metrics(directory, "train_loss")) if directory.exists() else 0
    with (directory.parents[1] / "output").open("a") as output:
        first = subprocess.Popen([sys.executable, *words], cwd=directory.parents[1], stdout=output, stderr=output, start_new_session=True)
        try:
            wait_for(lambda: (directory / events.EVENTS_FILE).exists() and len(metrics(directory, "train_loss")) >= before + 2)
            (second,) = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
            os.kill(second, by)
            return first.wait(120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)


def outcome(directory: Path) -> StageEvent:
    *_, last = (event for _, event in events.read(directory / events.EVENTS_FILE) if isinstance(event, StageEvent))
    return last
