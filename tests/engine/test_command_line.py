"""The terminal's promises: the files it writes, the words it says, the exit status it leaves with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from panollava.cli import app, resolve
from panollava.config import RunConfig, parse
from panollava.errors import BadInput
from panollava.stages import Stage
from panollava.training.chain import Start, train_chain

SHORT = ["--preset", "demo", "--batch-size", "8", "--max-steps", "3"]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "panollava", *words], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def chain(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which `train --stage all` has run."""
    cwd = tmp_path_factory.mktemp("terminal")
    done = run("train", "--stage", "all", "--data-dir", str(demo_data), *SHORT, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return cwd


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command in an empty directory, expect exit status 2, and return what it said. No torch, no files."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, result.output
        assert not list(tmp_path.glob("runs/*"))
        return result.output + result.stderr

    return call


def test_the_chain_writes_the_files_of_the_users_readme(chain: Path) -> None:
    for stage in Stage:
        directory = chain / "runs" / f"vlm_{stage}"
        (epoch,) = (directory / "checkpoints").glob("epoch=*.ckpt")
        assert re.fullmatch(r"epoch=00-val_loss=\d+\.\d{3}\.ckpt", epoch.name)
        assert (directory / "checkpoints" / "best.ckpt").exists()
        assert (directory / "model_final.safetensors").exists()
    logs = sorted(path.name for path in (chain / "logs").iterdir())
    expected = [r"full_pipeline_\d{8}_\d{6}\.log", *(rf"stage{stage.number}_{stage}_\d{{8}}_\d{{6}}\.log" for stage in Stage)]
    assert len(logs) == 4
    assert all(re.fullmatch(pattern, name) for pattern, name in zip(expected, logs, strict=True))
    assert "stage finetune" in (chain / "logs" / logs[0]).read_text()


def test_a_later_stage_starts_from_an_earlier_ones_checkpoint_with_resume(chain: Path, demo_data: Path) -> None:
    start = "runs/vlm_resampler/checkpoints/best.ckpt"
    done = run("train", "--stage", "finetune", "--resume", start, "--name", "again", "--data-dir", str(demo_data), *SHORT, cwd=chain)
    assert done.returncode == 0, done.stderr
    assert "a checkpoint of stage resampler, so stage finetune starts from its weights" in done.stdout
    assert (chain / "runs" / "again_finetune" / "checkpoints" / "best.ckpt").exists()


def test_a_finished_chain_is_not_trained_again_by_resume_auto(
    chain: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(chain)
    with caplog.at_level("INFO", logger="panollava"):
        train_chain(resolve(None, "demo", [], {"data_dir": str(demo_data)}), resume="auto", stage_dir=None)
    assert caplog.text.count("is finished already") == 3


def test_a_stage_whose_gate_is_closed_does_not_start_and_says_how_to_start_it(
    chain: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(chain)
    shutil.copytree("runs/vlm_resampler", "runs/gated_resampler")
    config = resolve(None, "demo", ["finetune.gate_below=0"], {"data_dir": str(demo_data), "name": "gated", "stage": "resampler,finetune"})
    with pytest.raises(
        BadInput, match=r"Stage finetune does not start: resampler reached val_loss .*, the gate asks for below 0\..* finetune.gate_below="
    ):
        train_chain(config, resume="auto", stage_dir=None)
    assert not Path("runs/gated_finetune").exists()


def test_a_first_stage_meets_its_gate_too_unless_it_is_opened_or_goes_on_with_its_own_weights(
    chain: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(chain)
    trained: list[Any] = []
    monkeypatch.setattr("panollava.training.chain._train", lambda _config, stage, _directory, start, *_: trained.append((stage, start)))
    start, own = (Path(f"runs/vlm_{stage}/checkpoints/best.ckpt") for stage in ("resampler", "finetune"))
    flags = {"data_dir": str(demo_data), "name": "forked", "stage": "finetune"}
    gated = resolve(None, "demo", ["finetune.gate_below=0"], flags | {"init_from": str(start)})
    closed = pytest.raises(BadInput, match=r"Stage finetune does not start: resampler reached val_loss .*, the gate .* nevertheless: --open-gate$")
    with closed:
        train_chain(gated, resume=None, stage_dir=None)
    with closed:
        train_chain(gated.model_copy(update={"init_from": None}), resume=str(start), stage_dir=None)
    assert trained == []
    train_chain(gated, resume=None, stage_dir=None, open_gate=True)
    train_chain(gated.model_copy(update={"init_from": str(own)}), resume=None, stage_dir=None)
    assert trained == [(Stage.finetune, Start(init_from=start)), (Stage.finetune, Start(init_from=own))]


def test_a_finished_training_is_not_overwritten(chain: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    with pytest.raises(BadInput, match="runs/vlm_vision: holds a training already"):
        train_chain(resolve(None, "demo", [], {"data_dir": str(demo_data)}), resume=None, stage_dir=None)


def test_resuming_a_checkpoint_from_elsewhere_does_not_write_over_a_training(chain: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    shutil.copytree("runs/vlm_vision/checkpoints", "elsewhere")
    with pytest.raises(BadInput, match="runs/vlm_vision: holds a training already"):
        train_chain(resolve(None, "demo", [], {"data_dir": str(demo_data), "stage": "vision"}), resume="elsewhere/last.ckpt", stage_dir=None)


def test_evaluate_compare_and_generate_work_on_its_checkpoints(chain: Path, demo_data: Path) -> None:
    csv = str(demo_data / "test.csv")
    for stage in ("resampler", "finetune"):
        words = ["--checkpoint", f"runs/vlm_{stage}/checkpoints/best.ckpt", "--csv", csv, "--output-dir", f"evals/{stage}"]
        done = run("evaluate", *words, "--controls", "blank,rolled", "--limit", "3", "--max-new-tokens", "8", cwd=chain)
        assert done.returncode == 0, done.stderr
        assert "bleu_4" in done.stdout
        assert "direction" in done.stdout
    metrics = json.loads((chain / "evals" / "finetune" / "metrics.json").read_text())
    predictions = [json.loads(line) for line in (chain / "evals" / "finetune" / "predictions.jsonl").read_text().splitlines()]
    shown = [each for each in predictions if each["condition"] == "image"]
    assert metrics["captions"]["image"]["groups"] == len(shown)
    assert metrics["captions"]["image"]["references"] == sum(len(each["references"]) for each in shown) == 3 * len(shown)
    assert set(metrics["captions"]) == {"image", "blank", "rolled"}

    compared = run("compare", "evals/resampler", "evals/finetune", cwd=chain)
    assert compared.returncode == 0, compared.stderr
    assert "cider" in compared.stdout.lower()

    image = str(next((demo_data / "images").glob("test_*.jpg")))
    answer = run("generate", "--checkpoint", "runs/vlm_finetune/model_final.safetensors", "--image", image, "--query", "what is behind", cwd=chain)
    assert answer.returncode == 0, answer.stderr


def test_sigterm_saves_and_leaves_with_75(demo_data: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "panollava", "train", "--stage", "resampler", "--preset", "demo", "--data-dir", str(demo_data), "--epochs", "200"]
    with (tmp_path / "output").open("w") as output:
        child = subprocess.Popen([*words, "--batch-size", "4"], cwd=tmp_path, stdout=output, stderr=output)
        try:
            wait_for(lambda: "step 1/" in (tmp_path / "output").read_text())
            child.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            assert child.wait(60) == 75, (tmp_path / "output").read_text()
            assert time.monotonic() - asked < 15
        finally:
            child.kill()
    assert (tmp_path / "runs" / "vlm_resampler" / "checkpoints" / "last.ckpt").exists()


def test_metrics_survive_kill_9_of_the_trainer_as_whole_lines(demo_data: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "panollava", "train", "--stage", "resampler", "--preset", "demo", "--data-dir", str(demo_data), "--epochs", "200"]
    events = tmp_path / "runs" / "vlm_resampler" / "events.jsonl"
    with (tmp_path / "output").open("w") as output:
        child = subprocess.Popen([*words, "--batch-size", "4"], cwd=tmp_path, stdout=output, stderr=output)
        try:
            wait_for(lambda: events.exists() and events.read_bytes().count(b'"metric"') >= 3)
        finally:
            child.kill()
            child.wait()
    lines = events.read_bytes().split(b"\n")
    assert lines[-1] == b""
    assert all(json.loads(line) for line in lines[:-1])


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stage", "finetuning"], "no stage is called 'finetuning'"),
        (["--set", "learning_rate=1"], "learning_rate: there is no such setting"),
        (["--set", "vision.learning_rate=1"], "stages.vision.learning_rate: there is no such setting"),
        (["--set", "lr=1"], "lr: there is no such setting. Each stage has its own, such as finetune.lr."),
        (["--batch-size", "-4"], "stages.vision.batch_size: Input should be greater than or equal to 1"),
        (["--stage", "vision", "--batch-size", "2"], "needs at least 4"),
        (["--overlap", "0"], "needs an overlap above 0"),
        (["--csv-train", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (["--preset", "nothing"], "there is no preset 'nothing'"),
        (["--config", "nothing.toml"], "nothing.toml: No such file or directory"),
        (["--devices", "3"], "stages.vision.batch_size is 32: it does not divide over 3 devices x 1 micro-batches; take a multiple of 3"),
        (["--set", "vision.accumulation=8"], "with accumulation 8 a micro-batch has 4 panoramas"),
        (["--set", "finetune.accumulation=16"], "stages.finetune.batch_size is 8: it does not divide over 1 devices x 16 micro-batches"),
    ],
)
def test_what_cannot_work_is_refused_with_status_2_and_a_reason(refused: Callable[..., str], words: list[str], said: str) -> None:
    assert said in refused("train", *words)


def test_a_checkpoint_that_is_not_there_is_named(refused: Callable[..., str]) -> None:
    assert "nothing.ckpt: there is no such checkpoint" in refused("evaluate", "--checkpoint", "nothing.ckpt", "--csv", "x.csv")


def test_a_file_that_is_no_checkpoint_is_refused_as_one(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("url,query,annotation\n")
    assert "train.csv: not a checkpoint, which is a .ckpt or a .safetensors file." in refused(
        "evaluate", "--checkpoint", "train.csv", "--csv", "x.csv"
    )


def test_a_csv_without_annotation_names_what_it_has(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("url,query\na.jpg,what\n")
    said = refused("data", "check", "bad.csv")
    assert "annotation" in said


def test_a_file_sets_defaults_and_flags_win(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\n[model]\nresampler = "mlp"\npool = 4\n[resampler]\nlr = 1e-3\n[finetune]\nlr = 2e-3\n')
    config = resolve(tmp_path / "mine.toml", None, ["finetune.lr=5e-3"], {"lr": 4e-3, "stage": "resampler,finetune", "pool": None})
    assert (config.name, config.pool, config.stage) == ("mine", 4, (Stage.resampler, Stage.finetune))
    assert (config.stages.resampler.lr, config.stages.finetune.lr) == (4e-3, 5e-3)
    assert config.stages.vision == RunConfig().stages.vision


def test_a_setting_without_a_value_is_not_set() -> None:
    assert resolve(None, "demo", [], {}).resampler_width == 128
    assert resolve(None, "demo", ["resampler_width=", "resampler.vision_lr="], {}).resampler_width is None


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"stage": 5}, "stage"),
        ({"stage": []}, "stage"),
        ({"fov": float("nan")}, "fov"),
        ({"stages": {"vision": {"lr": float("inf")}}}, "stages.vision.lr"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_at_their_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(values)
    assert [name for name, _why in refused.value.fields] == [field]


@pytest.mark.parametrize(("fov", "overlap", "views"), [(90, 0.5, 8), (90, 0.0, 4), (90, 0.8, 20), (90, 0.9, 40), (100, 0.5, 8), (120, 0.25, 4)])
def test_the_ring_has_as_many_views_as_the_overlap_needs(fov: float, overlap: float, views: int) -> None:
    assert RunConfig(fov=fov, overlap=overlap).views == views


def test_without_a_file_the_defaults_are_the_users_table() -> None:
    stages = RunConfig().stages
    table = {stage: (stages[stage].epochs, stages[stage].batch_size, stages[stage].lr, stages[stage].max_text_length) for stage in Stage}
    assert table == {Stage.vision: (3, 32, 5e-6, 32), Stage.resampler: (5, 16, 2e-5, 64), Stage.finetune: (10, 8, 1e-5, 128)}
    assert (RunConfig().vision_model, RunConfig().language_model) == ("google/siglip-base-patch16-224", "Qwen/Qwen2.5-0.5B")
    assert [RunConfig().csvs(split) for split in ("train", "valid")] == [(Path(f"data/quic360/{name}.csv"),) for name in ("train", "valid")]


def test_help_needs_no_torch() -> None:
    code = "import sys; import panollava.cli, panollava.architecture, panollava.presets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "False"
