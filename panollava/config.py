"""The one schema of a run: behind the launch form, the REST body, the command line's flags and `config.json`.

Torch-free. A file's `[vision]`, `[resampler]` and `[finetune]` tables are the stages' sections and `[model]` holds
plain fields, because a TOML file cannot have both `resampler = "mlp"` and a table `[resampler]` at its top.
A field's type says in which group a form shows it: `Views[float]`.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from panollava.errors import BadInput
from panollava.stages import Stage

CONFIG_FILE = "panollava.toml"
Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")


def _group(name: str) -> Any:
    return Field(json_schema_extra={"x-group": name})


def _unit(name: str) -> dict[str, Any]:
    """What a number counts, for `json_schema_extra`."""
    return {"x-unit": name}


Chain = Annotated[Value, _group("Chain")]
Common = Annotated[Value, _group("Common")]
Data = Annotated[Value, _group("Data")]
Views = Annotated[Value, _group("Views")]
Bridge = Annotated[Value, _group("Model")]
Optimizer = Annotated[Value, _group("Optimizer")]
Vicreg = Annotated[Value, _group("VICReg")]
Advanced = Annotated[Value, _group("Advanced")]
Terminal = Annotated[Value, _group("Terminal")]
STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StageConfig(BaseModel):
    """How one stage is optimised."""

    model_config = STRICT

    epochs: Common[int] = Field(ge=1, description="Passes over the training split.")
    batch_size: Common[int] = Field(
        ge=1,
        json_schema_extra=_unit("samples"),
        description="Samples per optimizer step, over all devices. Stage vision counts panoramas and needs 4.",
    )
    lr: Common[float] = Field(gt=0, description="Peak learning rate, reached after warm-up.")
    max_text_length: Common[int] = Field(
        ge=16, json_schema_extra=_unit("tokens"), description="Text tokens per sample, template and answer included; image tokens are not counted."
    )

    vision_lr: Optimizer[float | None] = Field(None, gt=0, description="Peak learning rate of the vision encoder; the stage's lr if not set.")
    weight_decay: Optimizer[float] = Field(0.05, ge=0, description="AdamW weight decay; never applied to norms, biases and embeddings.")
    warmup_ratio: Optimizer[float] = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises from zero.")
    min_lr_ratio: Optimizer[float] = Field(0.1, ge=0, le=1, description="Where the cosine ends, as a share of the peak learning rate.")
    grad_clip: Optimizer[float] = Field(1.0, gt=0, description="Largest norm of the gradient; longer ones are scaled down to it.")
    max_steps: Optimizer[int | None] = Field(
        None, ge=1, json_schema_extra=_unit("steps"), description="Stop after this many optimizer steps, even inside an epoch."
    )
    save_every_steps: Optimizer[int | None] = Field(
        None, ge=1, json_schema_extra=_unit("steps"), description="Also write a step checkpoint every so many steps."
    )


class StageConfigs(BaseModel):
    """One section per stage. The defaults are the user's table."""

    model_config = STRICT

    vision: StageConfig = Field(StageConfig(epochs=3, batch_size=32, lr=5e-6, max_text_length=32), description="Stage 1: VICReg.")
    resampler: StageConfig = Field(StageConfig(epochs=5, batch_size=16, lr=2e-5, max_text_length=64), description="Stage 2.")
    finetune: StageConfig = Field(StageConfig(epochs=10, batch_size=8, lr=1e-5, max_text_length=128), description="Stage 3.")

    @model_validator(mode="before")
    @classmethod
    def _partial_sections_keep_the_table(cls, sections: Any) -> Any:
        """`{"vision": {"lr": 1e-4}}` changes one number of the vision row, it does not ask for a whole new row."""
        if not isinstance(sections, Mapping):
            return sections
        table = {stage: cls.model_fields[stage].default.model_dump() for stage in Stage}
        return {name: table[name] | section if name in table and isinstance(section, Mapping) else section for name, section in sections.items()}

    def __getitem__(self, stage: Stage) -> StageConfig:
        section: StageConfig = getattr(self, stage)
        return section


def _stages(value: Any) -> Any:
    """`all`, one name, several joined by commas, or a list of names -> a tuple in training order."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    if names == ["all"]:
        return tuple(Stage)
    if unknown := [name for name in names if name not in list(Stage)]:
        raise ValueError(f"no stage is called {', '.join(map(repr, unknown))}; the stages are {', '.join(Stage)}, or all")
    if not names:
        raise ValueError("choose at least one stage")
    return tuple(stage for stage in Stage if stage in names)


class RunConfig(BaseModel):
    """Everything a run depends on. Unknown keys are refused; each field's description is its help everywhere."""

    model_config = STRICT

    name: Common[str] = Field("vlm", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="First part of the stage directories' names.")

    stage: Chain[Annotated[tuple[Stage, ...], BeforeValidator(_stages)]] = Field(
        tuple(Stage), min_length=1, description="Stages to train: vision, resampler, finetune, several joined by commas, or all."
    )
    init_from: Chain[str | None] = Field(None, description="Checkpoint whose weights the first stage starts from.")
    vision_model: Chain[str] = Field("google/siglip-base-patch16-224", description="Vision encoder: hub id or local directory.")
    language_model: Chain[str] = Field("Qwen/Qwen2.5-0.5B", description="Language model: hub id or local directory.")

    data_dir: Data[str | None] = Field(None, description="Directory with train.csv and valid.csv; used where csv_train, csv_val are not set.")
    csv_train: Data[str | None] = Field(None, description="Training split: CSV with url, query, annotation. Default data/quic360/train.csv.")
    csv_val: Data[str | None] = Field(None, description="Validation split. Default data/quic360/valid.csv.")
    image_root: Data[str | None] = Field(None, description="Where relative image paths start, before the CSV's own directory.")
    max_bad_frac: Data[float] = Field(0.0, ge=0, le=1, description="Share of rows that may be unusable before the run is refused.")
    num_workers: Data[int] = Field(0, ge=0, description="Processes that load images beside the training process.")

    crop_strategy: Views[Literal["e2p"]] = Field("e2p", description="How a panorama becomes views: e2p = a closed ring of perspective views.")
    fov: Views[float] = Field(90.0, gt=0, lt=170, json_schema_extra=_unit("degrees"), description="Field of view of each view, degrees.")
    overlap: Views[float] = Field(0.5, ge=0, lt=1, description="Share of a view's angle that its neighbour sees too.")

    resampler: Bridge[Literal["mlp"]] = Field("mlp", description="What maps vision features to the language model's image tokens.")
    resampler_width: Bridge[int | None] = Field(None, ge=1, description="Width inside the resampler; the vision encoder's if not set.")
    pool: Bridge[Literal[1, 2, 4]] = Field(2, description="Patch tokens averaged per side before the resampler: 2 makes one token of four.")

    vicreg_inv: Vicreg[float] = Field(25.0, ge=0, description="Weight of VICReg's invariance term.")
    vicreg_var: Vicreg[float] = Field(25.0, ge=0, description="Weight of VICReg's variance term.")
    vicreg_cov: Vicreg[float] = Field(1.0, ge=0, description="Weight of VICReg's covariance term.")
    expander_width: Vicreg[int] = Field(1024, ge=1, description="Width of the throw-away head on which stage vision takes its loss.")

    seed: Advanced[int] = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    devices: Advanced[int] = Field(1, ge=1, json_schema_extra=_unit("GPUs"), description="GPUs per run; a machine without one trains on its CPU.")
    precision: Advanced[Literal["auto", "fp32", "bf16"]] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32.")
    wandb_project: Advanced[str | None] = Field(None, description="Also log to this Weights & Biases project.")
    output_dir: Terminal[str] = Field("runs", description="Where the stage directories go.")
    log_dir: Terminal[str] = Field("logs", description="Where the log files go.")

    stages: StageConfigs = Field(StageConfigs(), description="Settings of each stage.")

    @property
    def views(self) -> int:
        """Views in the closed ring: the smallest count whose overlap is at least the one asked for."""
        stride = self.fov * (1 - self.overlap)
        return max(1, math.ceil(round(360 / stride, 9)))  # 360 / (90 * (1 - 0.8)) is 20.000000000000004

    def csv(self, split: Literal["train", "valid"]) -> Path:
        """The CSV file of a split: its own field, else `data_dir`, else the default directory."""
        named = self.csv_train if split == "train" else self.csv_val
        return Path(named) if named else Path(self.data_dir or "data/quic360") / f"{split}.csv"

    def check(self) -> None:
        """Refuse what can be seen to fail before anything is queued. Raises BadInput naming every field that is at fault."""
        if wrong := list(self._wrong()):
            raise BadInput("\n".join(f"{field} is {value}: {why}" for field, value, why in wrong), [(field, why) for field, _value, why in wrong])

    def _wrong(self) -> Iterator[tuple[str, float, str]]:
        if Stage.vision in self.stage and self.stages.vision.batch_size < 4:
            yield "stages.vision.batch_size", self.stages.vision.batch_size, "VICReg takes statistics across images and needs at least 4."
        if Stage.vision in self.stage and self.overlap == 0:
            yield "overlap", 0, "stage vision compares what neighbouring views both see, so it needs an overlap above 0."
        if self.devices > 1:
            yield "devices", self.devices, "a run on several devices is not built yet; use 1."


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A checked config, or BadInput naming every field that is wrong."""
    config = validated(RunConfig, values)
    config.check()
    return config


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """A model of these values, or BadInput naming every field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fields = [_field(each) for each in error.errors()]
        raise BadInput("\n".join(f"{where}: {what}" for where, what in fields), fields) from None


def _field(error: Any) -> tuple[str, str]:
    """("vision.lr", "there is no such setting.")"""
    where = ".".join(str(part) for part in error["loc"]) or "config"
    if error["type"] == "extra_forbidden":
        return where, "there is no such setting."
    return where, f"{error['msg'].removeprefix('Value error, ')} (got {error['input']!r})."


def from_file(path: Path) -> dict[str, Any]:
    """The values a TOML or JSON file sets, in the schema's own shape. Raises BadInput for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from None
    if path.suffix == ".json":
        import json

        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}.") from None
        return dict(values)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: {error}.") from None
    sections = {name: tables.pop(name) for name in list(Stage) if isinstance(tables.get(name), dict)}
    plain = tables.pop("model", {})
    return merge(merge(tables, plain), {"stages": sections} if sections else {})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins; tables are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"stages": {"vision": {"lr": 1}}}` -> `("stages.vision.lr", 1)`. Lists are values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `vision.lr` or `overlap` in a nested dictionary; a stage's name leads to its section."""
    keys = dotted.split(".")
    if len(keys) > 1 and keys[0] in list(Stage):
        keys = ["stages", *keys]
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


Control = Literal["blank", "shuffled", "rolled", "untrained"]


class EvaluateConfig(BaseModel):
    """One evaluation: behind `panollava evaluate`, `POST /evaluations` and the job's `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str = Field(description="Checkpoint to evaluate: .ckpt, or .safetensors of a finished stage.")
    csv: str = Field(description="Questions: CSV with url, query, annotation; rows of one (url, query) are references of one question.")
    image_root: str | None = Field(None, description="Where relative image paths start, before the CSV's own directory.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, in tokens.")
    batch_size: int = Field(32, ge=1, description="Questions answered at once.")
    limit: int | None = Field(None, ge=1, description="Only the first so many panoramas.")
    controls: tuple[Control, ...] = Field(
        (), description="Also ask with a grey image, another panorama's, one rolled by 90 degrees, or an untrained resampler."
    )
    seed: int = Field(0, ge=0, description="Seed of the untrained resampler.")
    output_dir: str | None = Field(None, description="Where predictions.jsonl and metrics.json go; beside the checkpoint if not set.")
