"""Everything a run depends on."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from panollava.config.fields import STRICT, Advanced, Bridge, Chain, Common, Data, Terminal, Vicreg, Views, misplaced, unit
from panollava.config.stage import StageConfigs
from panollava.errors import BadInput
from panollava.stages import Stage


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
    fov: Views[float] = Field(90.0, gt=0, lt=170, json_schema_extra=unit("degrees"), description="Field of view of each view, degrees.")
    overlap: Views[float] = Field(0.5, ge=0, lt=1, description="Share of a view's angle that its neighbour sees too.")

    resampler: Bridge[Literal["mlp"]] = Field("mlp", description="What maps vision features to the language model's image tokens.")
    resampler_width: Bridge[int | None] = Field(None, ge=1, description="Width inside the resampler; the vision encoder's if not set.")
    pool: Bridge[Literal[1, 2, 4]] = Field(2, description="Patch tokens averaged per side before the resampler: 2 makes one token of four.")

    vicreg_inv: Vicreg[float] = Field(25.0, ge=0, description="Weight of VICReg's invariance term.")
    vicreg_var: Vicreg[float] = Field(25.0, ge=0, description="Weight of VICReg's variance term.")
    vicreg_cov: Vicreg[float] = Field(1.0, ge=0, description="Weight of VICReg's covariance term.")
    expander_width: Vicreg[int] = Field(1024, ge=1, description="Width of the throw-away head on which stage vision takes its loss.")

    seed: Advanced[int] = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    devices: Advanced[int] = Field(1, ge=1, json_schema_extra=unit("GPUs"), description="GPUs per run; a machine without one trains on its CPU.")
    strategy: Advanced[Literal["auto", "ddp"]] = Field("auto", description="How devices share a step. auto: alone on one device, ddp on several.")
    num_nodes: Terminal[int] = Field(1, ge=1, json_schema_extra=unit("machines"), description="Machines per run, each started by torchrun.")
    precision: Advanced[Literal["auto", "fp32", "bf16", "fp16"]] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32.")
    gradient_checkpointing: Advanced[bool] = Field(
        False, description="Compute activations again in the backward pass: less memory, a third more time."
    )
    compile: Advanced[bool] = Field(False, description="Compile the encoders with torch.compile: minutes at the start, faster steps on a GPU.")
    fused_adamw: Advanced[bool] = Field(False, description="Update all weights in one kernel.")
    deterministic: Advanced[bool] = Field(
        False, description="Only algorithms that give the same bits each time, where there are some: slower on a GPU."
    )
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

    def _wrong(self) -> Iterator[tuple[str, Any, str]]:
        yield from misplaced(self)
        if Stage.vision in self.stage and self.stages.vision.batch_size < 4:
            yield "stages.vision.batch_size", self.stages.vision.batch_size, "VICReg takes statistics across images and needs at least 4."
        if Stage.vision in self.stage and self.overlap == 0:
            yield "overlap", 0, "stage vision compares what neighbouring views both see, so it needs an overlap above 0."
        for stage in self.stage:
            yield from self._wrong_split(stage)

    def _wrong_split(self, stage: Stage) -> Iterator[tuple[str, Any, str]]:
        """A step's samples are the same on one device and on many, so they must divide."""
        settings, field = self.stages[stage], f"stages.{stage}.batch_size"
        size, ranks = settings.batch_size, self.devices * self.num_nodes
        if size % (ranks * settings.accumulation):
            parts = f"{ranks} devices x {settings.accumulation} micro-batches"
            yield field, size, f"it does not divide over {parts}; take a multiple of {ranks * settings.accumulation}."
        if stage is Stage.vision and settings.accumulation > 1 and size // settings.accumulation < 8:
            micro = f"with accumulation {settings.accumulation} a micro-batch has {size // settings.accumulation} panoramas"
            yield field, size, f"{micro}, and VICReg takes its statistics across a micro-batch, which needs 8."
