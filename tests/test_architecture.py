"""Tests that guard decisions: who may import whom, what the docs promise, what must explain itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from panollava.config import EvaluateConfig, RunConfig, StageConfig

ROOT = Path(__file__).parents[1]


def test_the_layers_hold() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("program", ["from app.main import create_app", "import worker.__main__, worker.work", "import app.cli"])
def test_server_and_worker_start_without_torch(program: str) -> None:
    heavy = "{'torch', 'pytorch_lightning', 'transformers'}"
    code = f"{program}\nimport sys\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("model", [RunConfig, StageConfig, EvaluateConfig])
def test_every_setting_explains_itself(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_every_command_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    names = {tuple(match.split()) for match in re.findall(r"panollava ((?:token|data|runs|checkpoints|evals) [a-z-]+|[a-z]+)", text)}
    known = subprocess.run([Path(sys.executable).parent / "panollava", "--help"], capture_output=True, text=True, check=True).stdout
    assert names, "the README names commands"
    for name in names:
        done = subprocess.run([Path(sys.executable).parent / "panollava", *name, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, known)


def test_every_make_target_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= targets


def test_flags_and_fields_have_the_same_names() -> None:
    done = subprocess.run([sys.executable, "-m", "panollava", "train", "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "200"})
    fields = (RunConfig.model_fields.keys() | StageConfig.model_fields.keys()) - {"stages"}
    assert {field for field in fields if f"--{field.replace('_', '-')}" not in done.stdout} == set()


def test_nothing_is_unpickled_or_executed_from_users_files() -> None:
    forbidden = re.compile(r"weights_only=False|trust_remote_code=True|shell=True|pickle\.load|yaml\.load\(")
    sources = [path for package in ("app", "worker", "panollava", "tools") for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in sources if forbidden.search(path.read_text())] == []
