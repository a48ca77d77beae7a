"""What a run will take is told without torch and is what the training then has; what cannot work is refused with everything at once."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from panollava import architecture, budget
from panollava.cli import app, resolve
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.events import EVENTS_FILE, EventWriter, Progress
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.preflight import Counts, StageFigures, figures
from panollava.stages import RECIPES, Stage
from panollava.training.data import Plan, Samples, Split
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.module import StageModule
from panollava.training.stop import StopRequest
from tests.engine.tiny_models import SPEAKERS

DEMO = ("--preset", "demo")


def told(config: RunConfig, **changed: Any) -> dict[str, StageFigures]:
    changed_config = config.model_copy(update=changed)
    counted = figures(changed_config, architecture.outline(changed_config), Counts(160, 40), lambda _config, _stage, _steps: None)
    return {each.stage: each for each in counted}


def planned(*flags: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["plan", "--json", *flags])
    return done.exit_code, json.loads(done.stdout)


def fields(plan: dict[str, Any]) -> list[str]:
    return [refusal["field"] for refusal in plan["refusals"]]


@pytest.mark.parametrize("rank", [0, 4])
def test_parameters_by_part_are_those_of_the_model_that_is_trained(config: RunConfig, rank: int) -> None:
    config = config.model_copy(update={"lora_r": rank})
    for stage, said in told(config).items():
        recipe = RECIPES[stage]
        module = StageModule(build(config, language=recipe.needs_text, adapters="lora" in recipe.optional), config, stage, 1)
        own = list(module.parameters())
        assert said.parameters == sum(each.numel() for each in own), stage
        assert said.learning == sum(each.numel() for each in own if each.requires_grad), stage


def test_steps_and_image_tokens_are_those_of_the_training(config: RunConfig, split: Split, prompter: Prompter) -> None:
    for stage, said in told(config).items():
        samples, settings = len(Samples(split, by_row=RECIPES[stage].needs_text)), config.stages[stage]
        plan = Plan(samples, settings.batch_size, settings.epochs, 0, settings.max_steps, drop_last=not RECIPES[stage].needs_text)
        assert (said.samples, said.steps, said.steps_per_epoch) == (samples, plan.steps, plan.steps_per_epoch)
        assert said.image_tokens == prompter.head.count(prompter.image_token)


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_models_own_turns_take_as_many_tokens_as_in_the_training(speaker: Callable[[str], Path], config: RunConfig, name: str) -> None:
    directory = str(speaker(name))
    built = build(config.model_copy(update={"language_model": directory}))
    prompter = Prompter(built.tokenizer, built.image_tokens, 512)
    assert budget.around(directory) == 512 - prompter.room


def test_memory_falls_with_the_micro_batch_and_with_gradient_checkpointing(config: RunConfig) -> None:
    def peak(**changed: Any) -> int:
        memory = told(config, **changed)["resampler"].memory
        assert memory is not None
        return memory.total

    whole = config.stages
    split = whole.model_copy(update={"resampler": whole.resampler.model_copy(update={"accumulation": 2})})
    assert peak(stages=split) < 0.6 * peak()
    assert peak(gradient_checkpointing=True) < 0.8 * peak()


def test_nothing_heavy_is_imported(demo_data: Path) -> None:
    code = (
        "import sys; from panollava.cli import app\n"
        f"app(['plan', '--preset', 'demo', '--data-dir', {str(demo_data)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'pytorch_lightning', 'transformers', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "learns" in done.stdout


def test_everything_wrong_is_told_at_once_each_with_its_field(demo_data: Path) -> None:
    status, plan = planned(
        *DEMO, "--data-dir", "/nowhere", "--batch-size", "30", "--accumulation", "4", "--overlap", "0", "--max-text-length", "16",
        "--vision-model", "no/such", "--init-from", "/nowhere/best.ckpt",
    )  # fmt: skip
    assert status == 2
    batches = [f"stages.{stage}.batch_size" for stage in Stage]
    lengths = [f"stages.{stage}.max_text_length" for stage in (Stage.resampler, Stage.finetune)]
    assert set(fields(plan)) == {*batches, *lengths, "overlap", "data_dir", "vision_model", "init_from"}
    messages = " ".join(refusal["message"] for refusal in plan["refusals"])
    assert "take a multiple of 4" in messages
    assert "max_text_length is 16, of which the prompt leaves 5" in messages
    assert "/nowhere/valid.csv" in messages


def test_a_value_that_cannot_be_is_refused_with_its_field() -> None:
    status, plan = planned(*DEMO, "--fov", "200", "--pool", "3")
    assert (status, plan["stages"], fields(plan)) == (2, [], ["fov", "pool"])


def test_sizes_that_do_not_divide_are_refused_with_their_field(demo_data: Path) -> None:
    status, plan = planned(*DEMO, "--data-dir", str(demo_data), "--view-size", "50")
    assert (status, fields(plan)) == (2, ["view_size"])


def test_an_overlap_of_less_than_a_cell_is_refused(demo_data: Path) -> None:
    status, plan = planned(*DEMO, "--data-dir", str(demo_data), "--fov", "91", "--overlap", "0.01")
    assert (status, fields(plan)) == (2, ["overlap"])


def test_images_that_are_missing_are_named_with_their_line(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / f"{name}.csv").write_text("url,query,annotation\ngone.png,what?,a ball\n")
    status, plan = planned(*DEMO, "--data-dir", str(tmp_path))
    assert status == 2
    assert "train.csv:2:url: gone.png" in plan["refusals"][0]["message"]


def test_too_few_panoramas_to_compare_are_refused(demo_data: Path, tmp_path: Path) -> None:
    lines = (demo_data / "train.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:3]) + "\n")
    status, plan = planned(*DEMO, "--data-dir", str(demo_data), "--csv-train", str(tmp_path / "few.csv"), "--image-root", str(demo_data))
    assert (status, fields(plan)) == (2, ["csv_train"])


def test_too_few_panoramas_to_validate_stage_vision_are_refused(demo_data: Path, tmp_path: Path) -> None:
    lines = (demo_data / "valid.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:3]) + "\n")
    here = {"data_dir": str(demo_data), "csv_val": str(tmp_path / "few.csv"), "image_root": str(demo_data)}
    flags = [*DEMO, *(word for name, value in here.items() for word in (f"--{name.replace('_', '-')}", value))]
    status, plan = planned(*flags)
    assert (status, fields(plan)) == (2, ["csv_val"])
    with pytest.raises(BadInput, match="1 different panoramas"):  # as the training itself does
        train_stage(StageJob(resolve(None, "demo", [], here | {"cache": "off"}), Stage.vision, tmp_path), StopRequest(tmp_path))
    assert planned(*flags, "--stage", "resampler")[0] == 0


def test_the_time_is_that_of_the_same_work_before(demo_data: Path, tmp_path: Path) -> None:
    flags = (*DEMO, "--data-dir", str(demo_data), "--output-dir", str(tmp_path), "--stage", "finetune")
    status, plan = planned(*flags)
    assert (status, plan["stages"][0]["seconds"]) == (0, None)
    config = resolve(None, "demo", [], {"data_dir": str(demo_data), "stage": "finetune", "epochs": 7})
    directory = tmp_path / "before_finetune"
    directory.mkdir()
    (directory / "config.json").write_text(config.model_dump_json())
    events = EventWriter(directory / EVENTS_FILE)
    for pace in (0.5, 2.0, 3.0):
        events.write(Progress(done=1, total=3, unit="steps", seconds_per_unit=pace))
    events.close()
    assert planned(*flags)[1]["stages"][0]["seconds"] == pytest.approx(2.0 * plan["stages"][0]["steps"])
    assert planned(*flags, "--batch-size", "2")[1]["stages"][0]["seconds"] is None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_model_with_a_torn_file_is_refused_by_its_name(speaker: Callable[[str], Path], demo_data: Path, tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(speaker("llama"), tmp_path / "model"))
    (model / name).write_text('{"model_type": "lla')
    status, plan = planned(*DEMO, "--data-dir", str(demo_data), "--language-model", str(model))
    assert status == 2
    assert str(model) in " ".join(refusal["message"] for refusal in plan["refusals"])


def test_a_family_nobody_has_listed_leaves_its_figures_unknown(speaker: Callable[[str], Path], demo_data: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(speaker("base"), tmp_path / "model"))
    said = json.loads((model / "config.json").read_text()) | {"model_type": "newest"}
    (model / "config.json").write_text(json.dumps(said))
    status, plan = planned(*DEMO, "--data-dir", str(demo_data), "--language-model", str(model), "--stage", "finetune")
    (stage,) = plan["stages"]
    assert (status, stage["memory"], stage["flops_per_sample"]) == (0, None, None)
    assert stage["learning"] is not None
