"""The model card: what was trained, on what, how well it does where that was measured, what it cannot do, and how it is used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer
from panollava.hf.describe import _public
from panollava.metrics.report import read_report
from panollava.metrics.table import report_rows
from panollava.stages import Stage

USE = '''```python
import panollava  # lets transformers know the model
from transformers import pipeline

ask = pipeline("image-text-to-text", model="PATH_OR_ID")
content = [{"type": "image", "image": "panorama.jpg"}, {"type": "text", "text": "What is behind me?"}]
print(ask(text=[{"role": "user", "content": content}], return_full_text=False)[0]["generated_text"])
```'''
LIMITS = """- One panorama and one question at a time: it was trained on no conversations.
- Panoramas are equirectangular, twice as wide as high, and show the whole sphere.
- It can be wrong with confidence. Do not rely on it where people could be harmed."""


def model_card(checkpoint: Path, answerer: Answerer, evaluation: Path | None) -> str:
    """README.md. Raises BadInput for an evaluation that is none, or one of another checkpoint's stage."""
    sections = {
        "Use": USE, "Model": _rows(_model(answerer)), "Training": _rows(_training(answerer)),
        "Evaluation": _evaluation(evaluation, answerer) if evaluation else "Not measured here.", "Limits": LIMITS,
    }  # fmt: skip
    title = f"# {answerer.config.name}: {answerer.stage}\n\nA vision-language model for 360-degree panoramas, exported from `{checkpoint.name}`."
    return "\n\n".join([_front(answerer), title, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _front(answerer: Answerer) -> str:
    """What the hub reads; it takes no directory for a base model."""
    bases = [name for name in (answerer.config.vision_model, answerer.config.language_model) if _public(name) == name]
    lines = ["library_name: transformers", "pipeline_tag: image-text-to-text", "tags:", "- panorama", "- panollava"]
    return "\n".join(["---", *lines, *(["base_model:", *(f"- {name}" for name in bases)] if bases else []), "---"])


def _model(answerer: Answerer) -> Iterator[tuple[str, Any]]:
    config, prompter = answerer.config, answerer.prompter
    yield "Vision encoder", _public(config.vision_model)
    yield "Language model", _public(config.language_model)
    yield "Views", f"{config.views} of {answerer.cutter.size} x {answerer.cutter.size} pixels ({config.crop_strategy})"
    yield "Resampler", config.resampler
    yield "Image tokens", prompter.head.count(prompter.image_token)
    yield "Parameters", f"{sum(each.numel() for each in answerer.model.parameters()):,}"


def _training(answerer: Answerer) -> Iterator[tuple[str, Any]]:
    config = answerer.config
    for split in ("train", "valid"):
        yield f"Split {split}", config.csv(split).name  # type: ignore[arg-type]
    for stage in Stage:
        if stage.number <= answerer.stage.number:
            own = config.stages[stage]
            yield f"Stage {stage}", f"{config.loss(stage)}; {own.epochs} epochs of batches of {own.batch_size}, learning rate {own.lr:g}"
    yield "Seed", config.seed


def _evaluation(directory: Path, answerer: Answerer) -> str:
    """The metrics with their intervals, as `panollava evaluate` prints them, and the exact table they were measured on."""
    report = read_report(directory)
    told = json.loads((directory / "metrics.json").read_text())
    if told["checkpoint"]["stage"] != answerer.stage:
        raise BadInput(f"{directory}: an evaluation of stage {told['checkpoint']['stage']}, and this is a checkpoint of stage {answerer.stage}.")
    head, *rows = report_rows(report)
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    return f"On `{Path(told['csv']['path']).name}` (sha256 `{told['csv']['sha256']}`).\n\n{table}"


def _rows(rows: Iterator[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
