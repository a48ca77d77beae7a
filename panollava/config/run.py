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


def _paths(value: Any) -> Any:
    """`a.csv,b.csv`, as on a command line -> a list; nothing -> none."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return () if value is None else value


Tables = Annotated[tuple[str, ...], BeforeValidator(_paths)]


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
    csv_train: Data[Tables] = Field(
        (), description="Training split: CSV with url, query, annotation; several are joined by commas. Default data/quic360/train.csv."
    )
    csv_val: Data[Tables] = Field((), description="Validation split, one CSV or several. Default data/quic360/valid.csv.")
    image_root: Data[str | None] = Field(None, description="Where relative image paths start, before the CSV's own directory.")
    allow_remote: Data[bool] = Field(
        False, description="Download images whose url starts with http:// or https://, once each, into the cache directory."
    )
    allow_partial_pano: Data[bool] = Field(
        False,
        description="Take an image that is more than 10 % off 2:1 for a part of a panorama: the rest of the sphere is black around it, its middle is "
        "straight ahead on the horizon, a wide one goes all around and a narrow one from pole to pole.",
    )
    fast_decode: Data[bool] = Field(
        False, description="Decode JPEGs no larger than the views need: several times as fast, and the pixels differ a little."
    )
    max_bad_frac: Data[float] = Field(0.0, ge=0, le=1, description="Share of rows that may be unusable before the run is refused.")
    num_workers: Data[int] = Field(0, ge=0, description="Processes that load images beside the training process.")

    cache: Data[Literal["auto", "views", "off"]] = Field(
        "auto",
        description="What is kept on disk for later runs: auto = views of panoramas, and what a frozen vision encoder sees in them; views = views "
        "only; off = nothing, so that each panorama is decoded whenever it is drawn.",
    )

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
    precision: Advanced[Literal["auto", "fp32", "bf16"]] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32.")
    wandb_project: Advanced[str | None] = Field(None, description="Also log to this Weights & Biases project.")
    output_dir: Terminal[str] = Field("runs", description="Where the stage directories go.")
    log_dir: Terminal[str] = Field("logs", description="Where the log files go.")
    cache_dir: Terminal[str | None] = Field(None, description="Where the cache lies, shared by all runs. Default ~/.cache/panollava.")
    cache_gb: Terminal[float] = Field(
        50.0, gt=0, json_schema_extra=unit("GB"), description="Largest size of the cache; what was used longest ago is removed first."
    )

    stages: StageConfigs = Field(StageConfigs(), description="Settings of each stage.")

    @property
    def views(self) -> int:
        """Views in the closed ring: the smallest count whose overlap is at least the one asked for."""
        stride = self.fov * (1 - self.overlap)
        return max(1, math.ceil(round(360 / stride, 9)))  # 360 / (90 * (1 - 0.8)) is 20.000000000000004

    def csvs(self, split: Literal["train", "valid"]) -> tuple[Path, ...]:
        """The CSV files of a split, all of which are used: its own field, else `data_dir`, else the default directory."""
        named = self.csv_train if split == "train" else self.csv_val
        return tuple(map(Path, named)) or (Path(self.data_dir or "data/quic360") / f"{split}.csv",)

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
        if self.devices > 1:
            yield "devices", self.devices, "a run on several devices is not built yet; use 1."
