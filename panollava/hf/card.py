"""The model card: what was trained, on what, how well it does where that was measured, what it cannot do, and how it is used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from panollava import rundir
from panollava.errors import BadInput
from panollava.evaluation.answer import Answerer
from panollava.hf.describe import public
from panollava.metrics import captions
from panollava.metrics.bootstrap import Interval, intervals
from panollava.metrics.report import METRICS_FILE, PREDICTIONS_FILE, read_report
from panollava.training.history import history

USE = """```python
import panollava  # lets transformers know the model
from transformers import pipeline

ask = pipeline("image-text-to-text", model="PATH_OR_ID")
content = [{"type": "image", "image": "panorama.jpg"}, {"type": "text", "text": "What is behind me?"}]
print(ask(text=[{"role": "user", "content": content}], return_full_text=False)[0]["generated_text"])
```"""
LIMITS = """- One panorama and one question at a time: it was trained on no conversations.
- Panoramas are equirectangular, twice as wide as high, and show the whole sphere.
- It can be wrong with confidence. Do not rely on it where people could be harmed."""


def model_card(checkpoint: Path, answerer: Answerer, evaluation: Path | None) -> str:
    """README.md. Raises BadInput for an evaluation that is none, or one of another file."""
    sections = {
        "Use": USE, "Model": _rows(_model(answerer)), "Training": _rows(_training(checkpoint, answerer)),
        "Evaluation": _evaluation(checkpoint, evaluation) if evaluation else "Not measured here.", "Limits": LIMITS,
    }  # fmt: skip
    title = f"# {answerer.config.name}: {answerer.stage}\n\nA vision-language model for 360-degree panoramas, exported from `{checkpoint.name}`."
    return "\n\n".join([_front(answerer), title, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _front(answerer: Answerer) -> str:
    """What the hub reads; it takes no directory for a base model."""
    bases = [name for name in (answerer.config.vision_model, answerer.config.language_model) if public(name) == name]
    lines = ["library_name: transformers", "pipeline_tag: image-text-to-text", "tags:", "- panorama", "- panollava"]
    return "\n".join(["---", *lines, *(["base_model:", *(f"- {name}" for name in bases)] if bases else []), "---"])


def _model(answerer: Answerer) -> Iterator[tuple[str, Any]]:
    config, prompter = answerer.config, answerer.prompter
    yield "Vision encoder", public(config.vision_model)
    yield "Language model", public(config.language_model)
    yield "Views", f"{config.views} of {answerer.cutter.size} x {answerer.cutter.size} pixels ({config.crop_strategy})"
    yield "Resampler", config.resampler
    yield "Image tokens", prompter.head.count(prompter.image_token)
    yield "Parameters", f"{sum(each.numel() for each in answerer.model.parameters()):,}"


def _training(checkpoint: Path, answerer: Answerer) -> Iterator[tuple[str, Any]]:
    config = answerer.config
    prints = _fingerprints(checkpoint)
    for split, csvs in (("train", config.csvs("train")), ("valid", config.csvs("valid"))):
        yield f"Split {split}", f"{', '.join(csv.name for csv in csvs)}{prints.get(split, '')}"
    for each in history(checkpoint):
        steps = f"{each.loss}; {each.step:,} steps of {each.batch_size}, {each.epoch:g} epochs, learning rate {each.lr:g}"
        yield f"Stage {each.stage}", steps + (f", with LoRA adapters of rank {each.lora_r}" if each.lora_r else "")
    yield "Seed", config.seed


def _fingerprints(checkpoint: Path) -> dict[str, str]:
    """What the splits held when the stage read them, by split; empty where its directory does not say."""
    stage_dir = checkpoint.parent.parent if checkpoint.parent.name == rundir.CHECKPOINTS else checkpoint.parent
    if not (file := stage_dir / "data.json").is_file():
        return {}
    splits = json.loads(file.read_bytes())["splits"]
    return {name: f": {each['rows']:,} rows, {each['images']:,} panoramas, sha256 `{each['sha256']}`" for name, each in splits.items()}


def _evaluation(checkpoint: Path, directory: Path) -> str:
    """Scores with their 95 % intervals over questions, and the exact table that they were measured on."""
    report, told = read_report(directory), json.loads((directory / METRICS_FILE).read_bytes())
    if told["checkpoint"]["sha256"] != rundir.sha256(checkpoint):
        raise BadInput(f"{directory}: an evaluation of another file, {told['checkpoint']['path']}; evaluate {checkpoint} itself.")
    lines = [("", "n", "value", "95 %"), ("---",) * 4, *_captions(directory)]
    for figure, score in report.grounding.get("image", {}).items():
        if score.accuracy is not None:
            lines.append((figure, str(score.n), f"{score.accuracy:.4f}", _interval(score.interval)))
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"On `{Path(told['csv']['path']).name}` (sha256 `{told['csv']['sha256']}`).\n\n{table}"


def _captions(directory: Path) -> Iterator[tuple[str, ...]]:
    shown = captions.by_condition(captions.read_predictions(directory / PREDICTIONS_FILE))["image"]
    each = captions.samples(shown)
    values = each.metrics(np.ones((1, len(shown))))[0]
    for name, value, interval in zip(captions.METRICS, values, intervals(each.metrics, len(shown)), strict=True):
        yield name, str(len(shown)), f"{value:.4f}", _interval(interval)


def _interval(interval: Interval | None) -> str:
    """Older evaluations have none of what was measured against ground truth."""
    return f"{interval.low:.4f} to {interval.high:.4f}" if interval else ""


def _rows(rows: Iterator[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
