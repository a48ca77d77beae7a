"""Everything a run depends on."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from panollava import layouts
from panollava.config.fields import STRICT, Advanced, Bridge, Chain, Common, Data, Terminal, Vicreg, Views, misplaced, only_for, unit
from panollava.config.stage import StageConfigs
from panollava.errors import BadInput
from panollava.layouts import MOST_VIEWS
from panollava.stages import Stage

RINGS = ("e2p", "anyres_e2p", "sliding_window")
"""Crop strategies with closed rings of views that may overlap."""
Pitch = Annotated[float, Field(ge=-90, le=90)]


def _numbers(value: Any) -> Any:
    """`-45,0,45`, as on a command line -> a list."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


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

    crop_strategy: Views[Literal["e2p", "anyres_e2p", "cubemap", "sliding_window", "resize"]] = Field(
        "e2p",
        description="How a panorama becomes views: e2p = a closed ring of perspective views; anyres_e2p = the whole, then a ring at each of pitches; "
        "cubemap = faces of a cube, without overlap; sliding_window = a ring of full-height crops; resize = the whole as one view.",
    )
    fov: Views[float] = Field(
        90.0, gt=0, lt=170, json_schema_extra=unit("degrees") | only_for(crop_strategy=RINGS),
        description="Field of view of each view, degrees; of sliding_window the longitude that a crop spans.",
    )  # fmt: skip
    overlap: Views[float] = Field(
        0.5, ge=0, lt=1, json_schema_extra=only_for(crop_strategy=RINGS), description="Share of a view's angle that its neighbour sees too, at least."
    )
    view_count: Views[int | None] = Field(
        None, ge=1, le=MOST_VIEWS, json_schema_extra=unit("views") | only_for(crop_strategy=RINGS),
        description="Views of each ring; as few as fov and overlap allow if not set.",
    )  # fmt: skip
    pitches: Views[Annotated[tuple[Pitch, ...], BeforeValidator(_numbers)]] = Field(
        (-45.0, 0.0, 45.0), min_length=1, max_length=9, json_schema_extra=unit("degrees") | only_for(crop_strategy="anyres_e2p"),
        description="How far up the rings of anyres_e2p look, degrees, joined by commas.",
    )  # fmt: skip
    cube_faces: Views[Literal[4, 6]] = Field(
        6, json_schema_extra=only_for(crop_strategy="cubemap"), description="Faces of the cube: front, right, back, left, and with 6 up and down."
    )
    view_size: Views[int | None] = Field(
        None, ge=16, le=1024, json_schema_extra=unit("pixels"), description="Side of a view; the vision encoder's own if not set."
    )

    resampler: Bridge[Literal["mlp"]] = Field("mlp", description="What maps vision features to the language model's image tokens.")
    resampler_width: Bridge[int | None] = Field(None, ge=1, description="Width inside the resampler; the vision encoder's if not set.")
    pool: Bridge[Literal[1, 2, 4]] = Field(2, description="Patch tokens averaged per side before the resampler: 2 makes one token of four.")

    vicreg_inv: Vicreg[float] = Field(25.0, ge=0, description="Weight of VICReg's invariance term.")
    vicreg_var: Vicreg[float] = Field(25.0, ge=0, description="Weight of VICReg's variance term.")
    vicreg_cov: Vicreg[float] = Field(1.0, ge=0, description="Weight of VICReg's covariance term.")
    expander_width: Vicreg[int] = Field(1024, ge=1, description="Width of the throw-away head on which stage vision takes its loss.")

    seed: Advanced[int] = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    devices: Advanced[int] = Field(1, ge=1, json_schema_extra=unit("GPUs"), description="GPUs per run; a machine without one trains on its CPU.")
    precision: Advanced[Literal["auto", "fp32", "bf16"]] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32.")
    wandb_project: Advanced[str | None] = Field(None, description="Also log to this Weights & Biases project.")
    tensorboard: Advanced[bool] = Field(False, description="Also write event files for TensorBoard, to tensorboard/ beside the checkpoints.")
    metrics_csv: Advanced[bool] = Field(False, description="Also write metrics.csv beside the checkpoints: step, name, value.")
    example_predictions: Advanced[int] = Field(
        6,
        ge=0,
        le=64,
        json_schema_extra=unit("questions"),
        description="Validation questions that are answered after every validation, the same each time.",
    )
    output_dir: Terminal[str] = Field("runs", description="Where the stage directories go.")
    log_dir: Terminal[str] = Field("logs", description="Where the log files go.")

    stages: StageConfigs = Field(StageConfigs(), description="Settings of each stage.")

    @property
    def views(self) -> int:
        """Views that the model is given of every panorama."""
        return layouts.count(self)

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
        yield from self._wrong_views()
        if self.devices > 1:
            yield "devices", self.devices, "a run on several devices is not built yet; use 1."

    def _wrong_views(self) -> Iterator[tuple[str, Any, str]]:
        if self.views > MOST_VIEWS:
            why = f"that makes {self.views:,} views of every panorama, and at most {MOST_VIEWS} are cut; ask for less overlap or a wider fov."
            yield "overlap", self.overlap, why
            return
        if self.crop_strategy in RINGS and self.view_count is not None and self.view_count < layouts.fewest(self.fov, self.overlap):
            yield "view_count", self.view_count, self._too_few()
        if len(set(self.pitches)) < len(self.pitches):
            yield "pitches", ", ".join(f"{pitch:g}" for pitch in self.pitches), "give each of them once."
        if Stage.vision in self.stage and not layouts.layout(self).neighbours:
            yield self._no_neighbours()

    def _too_few(self) -> str:
        fewest, share = layouts.fewest(self.fov, self.overlap), layouts.shared(self.fov, self.view_count or 1)
        less = f" or overlap {math.floor(100 * share) / 100:g}" if share >= 0 else ""
        return (
            f"a ring of so few views of {self.fov:g} degrees cannot share {self.overlap:g} of their angle with the next; use at least {fewest}{less}."
        )

    def _no_neighbours(self) -> tuple[str, Any, str]:
        why = "stage vision compares what neighbouring views both see"
        if self.crop_strategy in RINGS:
            return "overlap", self.overlap, f"{why}, so it needs an overlap above 0."
        return "crop_strategy", self.crop_strategy, f"{why}, and no views of {self.crop_strategy} overlap; use one of {', '.join(RINGS)}."
