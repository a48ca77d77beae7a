"""Each known cause of a failure, made to happen: the word it is known by, as the last event of a training has it, and what it names."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from panollava import causes, events, rundir
from panollava.config import RunConfig, validated
from panollava.errors import BadInput
from panollava.events import StageEvent
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest


def failed(config: RunConfig, directory: Path, stage: Stage = Stage.resampler) -> StageEvent:
    """The last word of a training that fails."""
    with pytest.raises(Exception):  # noqa: B017  # which one is what the word is to say
        train_stage(StageJob(config, stage, directory), StopRequest(directory))
    last = [event for _, event in events.read(directory / events.EVENTS_FILE)][-1]
    assert isinstance(last, StageEvent) and last.status == "failed"
    return last


def few(config: RunConfig, data: Path, **more: object) -> RunConfig:
    return config.model_copy(update={"data_dir": str(data)} | more)


@pytest.fixture
def data(demo_data: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(demo_data, tmp_path / "data")


def test_a_panorama_that_is_not_there_is_a_missing_file_and_named(config: RunConfig, data: Path, tmp_path: Path) -> None:
    gone = next((data / "images").glob("train_*.jpg"))
    gone.unlink()
    last = failed(few(config, data), tmp_path / "run")
    assert last.reason == "missing_file"
    assert f"images/{gone.name}: no such file below {data}" in str(last.detail)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_panorama_that_goes_during_the_training_is_one_too(
    config: RunConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    import panollava.training.fit as fit

    splits = fit.Splits.read

    def read(self: fit.Splits) -> object:
        found = splits(self)
        shutil.rmtree(data / "images")
        return found

    monkeypatch.setattr(fit.Splits, "read", read)
    last = failed(few(config, data, cache="off", num_workers=workers), tmp_path / "run")
    first = str(last.detail).splitlines()[0]
    assert (last.reason, first.endswith("No such file or directory")) == ("missing_file", True)
    assert f"{data / 'images'}/" in first, "also where a process of its own had to say it"


def test_a_checkpoint_that_is_not_there_is_one_too(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        rundir.read_note(tmp_path / "best.ckpt")
    assert causes.of(caught.value) == "missing_file"
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(BadInput, match=r"best\.ckpt\.json is missing beside it") as caught:
        rundir.read_note(tmp_path / "best.ckpt")
    assert causes.of(caught.value) == "missing_file", "a refusal that hides what it was made of"


def test_a_model_that_is_not_here_while_the_hub_may_not_be_asked_is_named_with_what_to_do(config: RunConfig, tmp_path: Path) -> None:
    last = failed(config.model_copy(update={"language_model": "nobody/no-such-model"}), tmp_path)
    assert last.reason == "hub_away"
    assert str(last.detail).startswith(
        "language_model: 'nobody/no-such-model' is not on this machine, and the hub does not answer (HF_HUB_OFFLINE is set). "
        "Fetch it with `hf download nobody/no-such-model` where there is a network, or give a local directory, or clear HF_HUB_OFFLINE."
    )


def test_a_models_directory_that_is_not_there_is_a_missing_file(config: RunConfig, tmp_path: Path) -> None:
    last = failed(config.model_copy(update={"vision_model": str(tmp_path / "nowhere")}), tmp_path / "run")
    assert (last.reason, last.detail) == ("missing_file", f"vision_model: {tmp_path / 'nowhere'}: there is no such directory.")


def test_a_setting_that_cannot_be_is_a_bad_configuration(config: RunConfig, tmp_path: Path) -> None:
    last = failed(config.model_copy(update={"view_size": 33}), tmp_path)
    assert (last.reason, str(last.detail).startswith("view_size is 33")) == ("bad_config", True)
    with pytest.raises(BadInput) as caught:
        validated(RunConfig, {"no_such_key": 1})
    assert causes.of(caught.value) == "bad_config"


def test_data_that_cannot_be_used_is_bad_input(config: RunConfig, data: Path, tmp_path: Path) -> None:
    (data / "train.csv").write_text("url,annotation\na.jpg,this\n")
    assert failed(few(config, data), tmp_path / "run").reason == "bad_input"


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system to fill")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "panollava-test", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_checkpoint_that_finds_no_room_names_the_bytes_that_it_needs(config: RunConfig, small_disk: Path) -> None:
    last = failed(config, small_disk / "run")
    assert last.reason == "disk_full"
    assert "could not be written: no space left on the device. It needs" in str(last.detail) and "are free on its disk" in str(last.detail)


def test_a_cache_that_finds_no_room_costs_time_and_no_training(config: RunConfig, small_disk: Path, tmp_path: Path) -> None:
    short = config.stages.resampler.model_copy(update={"max_steps": 1})
    stages = config.stages.model_copy(update={"resampler": short})
    job = StageJob(config.model_copy(update={"cache_dir": str(small_disk / "cache"), "stages": stages}), Stage.resampler, tmp_path)
    assert train_stage(job, StopRequest(tmp_path)).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_that_is_used_up_is_a_full_disk(number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert causes.of(error) == causes.named("OSError", str(error)) == "disk_full"
    try:
        try:
            raise error
        except OSError as refused:
            raise BadInput("cache_dir is /cache: it cannot be written.") from refused
    except BadInput as told:
        assert causes.of(told) == "disk_full", "what it was raised from says more"


def test_an_error_raised_while_a_missing_file_was_dealt_with_is_not_taken_for_one() -> None:
    try:
        try:
            raise FileNotFoundError(2, "No such file or directory", "note.json")
        except FileNotFoundError:
            raise ZeroDivisionError("division by zero")  # noqa: B904
    except ZeroDivisionError as error:
        assert causes.word(error) == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("reason", "detail", "word"),
    [
        ("Diverged", "The loss was not finite in 10 steps in a row", "diverged"),
        ("OutOfMemoryError", "CUDA out of memory.", "out_of_memory"),
        ("RuntimeError", "CUDA error: out of memory", "out_of_memory"),
        ("MemoryError", "", "out_of_host_memory"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'x'", "missing_file"),
        ("disk_full", "CUDA out of memory", "disk_full"),
        ("KeyError", "'a'", "KeyError"),
    ],
)
def test_what_older_trainers_have_written_down_is_known_by_todays_words(reason: str, detail: str, word: str) -> None:
    assert causes.named(reason, detail) == word
