"""The fields of the launch form, made from the run's JSON schema: what each is called, counts, may hold, and where it stands.

No HTTP, no database, no files. A field's value travels as the text that stands in it; nothing in it means not set.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.i18n import _
from panollava.config import RunConfig
from panollava.stages import Stage

GROUPS = {
    "Chain": (_("Stages"), ""),
    "Common": (_("Common"), ""),
    "Data": (_("Data"), ""),
    "Views": (_("Views"), ""),
    "Model": (_("Model"), ""),
    "Optimizer": (_("Optimizer"), ""),
    "Overlap loss": (_("Overlap loss"), _("The loss of stage vision, which can be added to stage resampler.")),
    "Advanced": (_("Advanced"), ""),
    "Terminal": (_("Terminal only"), _("A run of this server gets directories of its own. These count for the command.")),
}
"""By `x-group`, in the order of the form: title and note."""
CHAIN, OPEN = "Chain", ("Common", "Data")
LABELS = {
    "stage": _("Stages"),
    "init_from": _("Start from"),
    "lr": _("Learning rate"),
    "vision_lr": _("Learning rate of the vision encoder"),
    "min_lr_ratio": _("Lowest learning rate"),
    "warmup_ratio": _("Warm-up"),
    "grad_clip": _("Gradient clip"),
    "max_text_length": _("Longest text"),
    "max_steps": _("Most steps"),
    "gate_below": _("Gate"),
    "data_dir": _("Data directory"),
    "csv_train": _("Training split"),
    "csv_val": _("Validation split"),
    "image_root": _("Images"),
    "allow_remote": _("Download images"),
    "allow_partial_pano": _("Parts of panoramas"),
    "fast_decode": _("Fast decoding"),
    "cache_gb": _("Size of the cache"),
    "cache_dir": _("Cache directory"),
    "max_bad_frac": _("Bad rows allowed"),
    "num_workers": _("Image loaders"),
    "fov": _("Field of view"),
    "view_count": _("Views of a ring"),
    "cube_faces": _("Faces of the cube"),
    "view_size": _("Size of a view"),
    "overlap_loss": _("Loss"),
    "overlap_loss_weight": _("Weight in stage resampler"),
    "vicreg_inv": _("VICReg: invariance"),
    "vicreg_var": _("VICReg: variance"),
    "vicreg_cov": _("VICReg: covariance"),
    "densecl_temperature": _("DenseCL: temperature"),
    "lora_r": _("LoRA rank"),
    "lora_alpha": _("LoRA scale"),
    "lora_dropout": _("LoRA dropout"),
    "lora_targets": _("LoRA layers"),
    "wandb_project": _("W&B project"),
    "tensorboard": _("TensorBoard"),
    "metrics_csv": _("metrics.csv"),
    "output_dir": _("Output directory"),
    "log_dir": _("Log directory"),
}
"""Where the name itself, in words, would not do."""


@dataclass(frozen=True)
class Field:
    """One input. `name` is dotted, `stages.vision.lr`; `key` is its last part, which the three stages share."""

    name: str
    key: str
    stage: Stage | None
    label: str
    help: str
    unit: str
    group: str
    type: str
    items: str
    """What an array is of."""
    choices: tuple[str, ...]
    bounds: str
    """In words: `above 0, at most 1`."""
    is_optional: bool
    """Whether nothing in it is a value of its own."""

    @property
    def is_number(self) -> bool:
        return self.type in ("integer", "number") and not self.choices

    def value(self, text: str, instead: Any) -> Any:
        """What the text stands for, as JSON has it; text that is no number stays text, for the schema to refuse. `instead`: of nothing."""
        text = text.strip()
        if self.type == "array":
            names = [name.strip() for name in text.split(",") if name.strip()]
            return list(Stage) if text == "all" else [_number(name) for name in names] if self.items == "number" else names
        if not text:
            return None if self.is_optional else instead
        if self.type == "boolean":
            return {"true": True, "false": False}.get(text, text)
        return _number(text) if self.type in ("integer", "number") else text


@dataclass(frozen=True)
class Group:
    """Fields that stand together: those of the run, then rows of one field for each stage."""

    name: str
    title: str
    note: str
    plain: list[Field]
    rows: list[list[Field]]

    @property
    def fields(self) -> list[Field]:
        return [*self.plain, *(field for row in self.rows for field in row)]


@cache
def groups() -> dict[str, Group]:
    """Every setting there is, by group, in the order of the form."""
    schema = RunConfig.model_json_schema()
    plain = [_field(key, spec) for key, spec in schema["properties"].items() if key != "stages"]
    rows = [[_field(key, spec, stage) for stage in Stage] for key, spec in schema["$defs"]["StageConfig"]["properties"].items()]
    return {
        name: Group(name, title, note, [each for each in plain if each.group == name], [row for row in rows if row[0].group == name])
        for name, (title, note) in GROUPS.items()
    }


@cache
def fields() -> dict[str, Field]:
    """Every field by its dotted name."""
    return {field.name: field for group in groups().values() for field in group.fields}


def text(value: Any) -> str:
    """What stands in a field that has this value: `5e-6`, `0.5`, `vision,finetune`, nothing for None."""
    if isinstance(value, list | tuple):
        return ",".join(map(text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), repr(value)).removesuffix(".0")
    return "" if value is None else str(value)


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: text(value) for name, value in values.items()}


def values(texts: Mapping[str, str], start: Mapping[str, Any]) -> dict[str, Any]:
    """What all the fields come to, by dotted name. A field that is not there, and one that is empty and must not be, is as at the start."""
    return {name: field.value(texts[name], start[name]) if name in texts else start[name] for name, field in fields().items()}


def _field(key: str, spec: Mapping[str, Any], stage: Stage | None = None) -> Field:
    kinds: list[Mapping[str, Any]] = spec.get("anyOf", [spec])
    kind = next(each for each in kinds if each["type"] != "null")
    choices = kind.get("enum", [kind["const"]] if "const" in kind else ["true", "false"] if kind["type"] == "boolean" else [])
    return Field(
        name=f"stages.{stage}.{key}" if stage else key, key=key, stage=stage,
        label=LABELS.get(key) or key.replace("_", " ").capitalize(),
        help=_(spec["description"]), unit=_(spec["x-unit"]) if "x-unit" in spec else "", group=spec["x-group"],
        type=kind["type"], items=kind.get("items", {}).get("type", ""), choices=tuple(map(str, choices)),
        bounds=", ".join(_bounds(kind)), is_optional=len(kinds) > 1,
    )  # fmt: skip


def _bounds(kind: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": _("{n} or more"), "exclusiveMinimum": _("above {n}"), "maximum": _("at most {n}"), "exclusiveMaximum": _("below {n}")}
    return (word.format(n=kind[bound]) for bound, word in words.items() if bound in kind)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            return number if abs(number) < float("inf") else text
    return text
