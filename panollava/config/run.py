"""Everything a run depends on."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from panollava import layouts, resamplers
from panollava.config.fields import STRICT, Advanced, Bridge, Chain, Common, Data, Overlap, Terminal, Views, misplaced, only_for, unit
from panollava.config.stage import StageConfigs
from panollava.errors import BadInput
from panollava.layouts import MOST_VIEWS
from panollava.stages import FEWEST, RECIPES, Stage

RINGS = ("e2p", "anyres_e2p", "sliding_window")
"""Crop strategies with closed rings of views that may overlap."""
Pitch = Annotated[float, Field(ge=-90, le=90)]
LEAST_MICRO_BATCH = 8
"""Panoramas over which an overlap loss can take its statistics where a step is split into micro-batches."""
LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets")


def _listed(value: Any) -> Any:
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
        False,
        description="Decode JPEGs no larger than the views need and take one sample a pixel: several times as fast, and the pixels differ a little.",
    )
    max_bad_frac: Data[float] = Field(0.0, ge=0, le=1, description="Share of rows that may be unusable before the run is refused.")
    num_workers: Data[int] = Field(0, ge=0, description="Processes that load images beside the training process.")

    cache: Data[Literal["auto", "views", "off"]] = Field(
        "auto",
        description="What is kept on disk for later runs: auto = views of panoramas, and what a frozen vision encoder sees in them; views = views "
        "only; off = nothing, so that each panorama is decoded whenever it is drawn.",
    )

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
    pitches: Views[Annotated[tuple[Pitch, ...], BeforeValidator(_listed)]] = Field(
        (-45.0, 0.0, 45.0), min_length=1, max_length=9, json_schema_extra=unit("degrees") | only_for(crop_strategy="anyres_e2p"),
        description="How far up the rings of anyres_e2p look, degrees, joined by commas.",
    )  # fmt: skip
    cube_faces: Views[Literal[4, 6]] = Field(
        6, json_schema_extra=only_for(crop_strategy="cubemap"), description="Faces of the cube: front, right, back, left, and with 6 up and down."
    )
    view_size: Views[int | None] = Field(
        None, ge=16, le=1024, json_schema_extra=unit("pixels"), description="Side of a view; the vision encoder's own if not set."
    )

    resampler: Bridge[Annotated[str, AfterValidator(resamplers.known)]] = Field(
        "mlp", json_schema_extra={"enum": list(resamplers.RESAMPLERS)},
        description="What maps vision features to image tokens: mlp, linear and avgpool keep one token for each patch or each few; "
        "perceiver and qformer let a fixed number of queries read all views.",
    )  # fmt: skip
    resampler_width: Bridge[int | None] = Field(
        None, ge=1, json_schema_extra=only_for(resampler=resamplers.having("resampler_width")),
        description="Width inside the resampler; the vision encoder's if not set.",
    )  # fmt: skip
    pool: Bridge[Literal[1, 2, 4]] = Field(
        2, json_schema_extra=only_for(resampler=resamplers.having("pool")),
        description="Patch tokens averaged per side before the resampler: 2 makes one token of four.",
    )  # fmt: skip
    resampler_queries: Bridge[int] = Field(
        64, ge=1, le=4096, json_schema_extra=unit("tokens") | only_for(resampler=resamplers.having("resampler_queries")),
        description="Image tokens of a panorama: queries that read all of its views.",
    )  # fmt: skip
    resampler_layers: Bridge[int] = Field(
        2, ge=1, le=24, json_schema_extra=only_for(resampler=resamplers.having("resampler_layers")), description="Attention layers of the resampler."
    )
    resampler_heads: Bridge[int] = Field(
        8, ge=1, le=64, json_schema_extra=only_for(resampler=resamplers.having("resampler_heads")),
        description="Attention heads of each of its layers; their number divides the resampler's width.",
    )  # fmt: skip

    lora_r: Bridge[int] = Field(
        0, ge=0, le=1024, description="Rank of the LoRA adapters that stage finetune trains in the language model; 0 is none."
    )
    lora_alpha: Bridge[int | None] = Field(None, ge=1, description="Scale of the adapters, divided by their rank; twice the rank if not set.")
    lora_dropout: Bridge[float] = Field(0.0, ge=0, lt=1, description="Share of an adapter's inputs that are dropped in training.")
    lora_targets: Bridge[Annotated[tuple[str, ...], BeforeValidator(_listed)]] = Field(
        ("all-linear",), min_length=1, description="Layers that get adapters, such as q_proj,v_proj; all-linear is every one but the head."
    )

    overlap_loss: Overlap[Literal["vicreg", "densecl"]] = Field(
        "vicreg",
        description="What stage vision minimises on what neighbouring views both see: vicreg = they agree, and images stay apart; "
        "densecl = each cell is told from others.",
    )
    overlap_loss_weight: Overlap[float] = Field(
        0.0, ge=0, description=f"Weight with which stage resampler adds that loss to its own; batches of fewer than {FEWEST} panoramas go without."
    )
    vicreg_inv: Overlap[float] = Field(
        25.0, ge=0, json_schema_extra=only_for(overlap_loss="vicreg"), description="Weight of VICReg's invariance term."
    )
    vicreg_var: Overlap[float] = Field(25.0, ge=0, json_schema_extra=only_for(overlap_loss="vicreg"), description="Weight of VICReg's variance term.")
    vicreg_cov: Overlap[float] = Field(
        1.0, ge=0, json_schema_extra=only_for(overlap_loss="vicreg"), description="Weight of VICReg's covariance term."
    )
    densecl_temperature: Overlap[float] = Field(
        0.2, ge=0.01, json_schema_extra=only_for(overlap_loss="densecl"), description="DenseCL's temperature: the lower, the more the hardest count."
    )
    expander_width: Overlap[int] = Field(1024, ge=1, description="Width of the throw-away head on which the overlap loss is taken.")

    seed: Advanced[int] = Field(0, ge=0, description="Seed of weights, order and augmentation.")
    devices: Advanced[int] = Field(1, ge=1, json_schema_extra=unit("GPUs"), description="GPUs per run; a machine without one trains on its CPU.")
    strategy: Advanced[Literal["auto", "ddp"]] = Field("auto", description="How devices share a step. auto: alone on one device, ddp on several.")
    max_attempts: Advanced[int] = Field(
        3, ge=1, le=100, json_schema_extra=unit("attempts"),
        description="Attempts in a row that a stage of a dashboard's run may lose to a kill, or with their machine, before they save anything new; "
        "ten times as many in all, until somebody resumes it.",
    )  # fmt: skip
    num_nodes: Terminal[int] = Field(1, ge=1, json_schema_extra=unit("machines"), description="Machines per run, each started by torchrun.")
    precision: Advanced[Literal["auto", "fp32", "bf16", "fp16"]] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32.")
    gradient_checkpointing: Advanced[bool] = Field(
        False, description="Compute activations again in the backward pass: less memory, a third more time."
    )
    auto_batch: Advanced[bool] = Field(
        False,
        description="Where a training step does not fit into memory: halve its micro-batches, double accumulation, do the step again and go on, with "
        "a warning. An overlap loss keeps at least 8 panoramas a micro-batch; validation batches are halved for themselves. On one device.",
    )
    compile: Advanced[bool] = Field(False, description="Compile the encoders with torch.compile: minutes at the start, faster steps on a GPU.")
    fused_adamw: Advanced[bool] = Field(False, description="Update all weights in one kernel.")
    deterministic: Advanced[bool] = Field(
        False, description="Only algorithms that give the same bits each time, where there are some: slower on a GPU."
    )
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
    cache_dir: Terminal[str | None] = Field(None, description="Where the cache lies, shared by all runs. Default ~/.cache/panollava.")
    cache_gb: Terminal[float] = Field(
        50.0, gt=0, json_schema_extra=unit("GB"), description="Largest size of the cache; what was used longest ago is removed first."
    )

    stages: StageConfigs = Field(StageConfigs(), description="Settings of each stage.")

    @property
    def views(self) -> int:
        """Views that the model is given of every panorama."""
        return layouts.count(self)

    @property
    def lora_scale(self) -> int:
        return self.lora_alpha or 2 * self.lora_r

    @property
    def supersample(self) -> int:
        """Samples a side of which each pixel of a view is the mean."""
        return 1 if self.fast_decode else 2

    def without_adapters(self) -> "RunConfig":
        """The config of the same model once its adapters are merged."""
        return self.model_copy(update={name: RunConfig.model_fields[name].default for name in LORA})

    def with_accumulation(self, stage: Stage, accumulation: int) -> "RunConfig":
        """The config of the same steps in other micro-batches."""
        settings = self.stages[stage].model_copy(update={"accumulation": accumulation})
        return self.model_copy(update={"stages": self.stages.model_copy(update={str(stage): settings})})

    def overridden(self, stage: Stage, settings: Mapping[str, Any]) -> "RunConfig":
        """The config with settings in their place, by their names on the command line: those that stages have are this stage's."""
        section = {name: value for name, value in settings.items() if name in type(self.stages[stage]).model_fields}
        whole = self.model_dump() | {name: value for name, value in settings.items() if name not in section}
        whole["stages"][stage] |= section
        return RunConfig.model_validate(whole)

    def csvs(self, split: Literal["train", "valid"]) -> tuple[Path, ...]:
        """The CSV files of a split, all of which are used: its own field, else `data_dir`, else the default directory."""
        named = self.csv_train if split == "train" else self.csv_val
        return tuple(map(Path, named)) or (Path(self.data_dir or "data/quic360") / f"{split}.csv",)

    def losses(self, stage: Stage) -> dict[str, float]:
        """What a stage minimises: the names of its losses, its own first, and their weights."""
        recipe = RECIPES[stage]
        if recipe.loss == "overlap":
            return {self.overlap_loss: 1.0}
        added = {self.overlap_loss: self.overlap_loss_weight} if self.overlap_loss_weight and "vision" in recipe.trains else {}
        return {recipe.loss: 1.0} | added

    def loss(self, stage: Stage) -> str:
        """The same in words: `autoregressive + 0.1 vicreg`."""
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in self.losses(stage).items())

    def check(self) -> None:
        """Refuse what can be seen to fail before anything is queued. Raises BadInput naming every field that is at fault."""
        if wrong := list(self._wrong()):
            raise BadInput("\n".join(f"{field} is {value}: {why}" for field, value, why in wrong), [(field, why) for field, _value, why in wrong])

    def _wrong(self) -> Iterator[tuple[str, Any, str]]:
        yield from misplaced(self)
        yield from self._wrong_adapters()
        yield from self._wrong_views()
        yield from self._wrong_overlap_loss()
        yield from self._wrong_auto_batch()
        if (gate := self.stages.vision.gate_below) is not None:
            yield "stages.vision.gate_below", gate, "no stage comes before vision, so nothing could open its gate."
        for stage in self.stage:
            yield from self._wrong_split(stage)

    def _wrong_views(self) -> Iterator[tuple[str, Any, str]]:
        if self.views > MOST_VIEWS:
            why = f"that makes {self.views:,} views of every panorama, and at most {MOST_VIEWS} are cut; ask for less overlap or a wider fov."
            yield "overlap", self.overlap, why
            return
        if self.crop_strategy in RINGS and self.view_count is not None and self.view_count < layouts.fewest(self.fov, self.overlap):
            yield "view_count", self.view_count, self._too_few()
            return
        if len(set(self.pitches)) < len(self.pitches):
            yield "pitches", ", ".join(f"{pitch:g}" for pitch in self.pitches), "give each of them once."
        users = self._overlap_stages()
        if users and not layouts.layout(self).neighbours:
            yield self._no_neighbours(users[0])

    def _too_few(self) -> str:
        fewest, share = layouts.fewest(self.fov, self.overlap), layouts.shared(self.fov, self.view_count or 1)
        less = f" or overlap {math.floor(100 * share) / 100:g}" if share >= 0 else ""
        return (
            f"a ring of so few views of {self.fov:g} degrees cannot share {self.overlap:g} of their angle with the next; use at least {fewest}{less}."
        )

    def _overlap_stages(self) -> list[Stage]:
        """Stages with the overlap loss, alone or beside their own."""
        return [stage for stage in self.stage if self.overlap_loss in self.losses(stage)]

    def _wrong_overlap_loss(self) -> Iterator[tuple[str, Any, str]]:
        for stage in self._overlap_stages():
            if (size := self.stages[stage].batch_size) < FEWEST:
                yield f"stages.{stage}.batch_size", size, f"the overlap loss takes statistics across images and needs at least {FEWEST}."
        if self._overlap_stages() and not any((self.vicreg_inv, self.vicreg_var, self.vicreg_cov)):
            yield "vicreg_inv", self.vicreg_inv, "with all three weights of VICReg 0 there is nothing to minimise."
        if self.overlap_loss_weight and Stage.resampler not in self.stage:
            why = (
                "it is added in stage resampler, which this run does not train. Stage vision is the overlap loss alone, and in stage finetune the "
                "vision encoder on whose patches it acts is frozen, so it would change nothing. Train stage resampler, or set 0."
            )
            yield "overlap_loss_weight", self.overlap_loss_weight, why

    def _no_neighbours(self, stage: Stage) -> tuple[str, Any, str]:
        why = f"stage {stage} compares what neighbouring views both see"
        if self.crop_strategy in RINGS:
            return "overlap", self.overlap, f"{why}, so it needs an overlap above 0."
        return "crop_strategy", self.crop_strategy, f"{why}, and no views of {self.crop_strategy} overlap; use one of {', '.join(RINGS)}."

    def _wrong_adapters(self) -> Iterator[tuple[str, Any, str]]:
        for name in LORA[1:]:
            if not self.lora_r and getattr(self, name) != RunConfig.model_fields[name].default:
                yield name, getattr(self, name), "it counts only where lora_r is above 0."

    def _wrong_auto_batch(self) -> Iterator[tuple[str, Any, str]]:
        if self.auto_batch and (self.devices * self.num_nodes > 1 or self.strategy == "ddp"):
            why = (
                "with ddp the others would wait for ever for the gradients of the one that has run out of memory. Set the stage's accumulation; "
                "a run on one device with auto_batch finds what fits."
            )
            yield "auto_batch", self.auto_batch, why

    def _wrong_split(self, stage: Stage) -> Iterator[tuple[str, Any, str]]:
        """A step's samples are the same on one device and on many, so they must divide."""
        settings, field = self.stages[stage], f"stages.{stage}.batch_size"
        size, ranks = settings.batch_size, self.devices * self.num_nodes
        if size % (ranks * settings.accumulation):
            parts = f"{ranks} devices x {settings.accumulation} micro-batches"
            yield field, size, f"it does not divide over {parts}; take a multiple of {ranks * settings.accumulation}."
        if stage in self._overlap_stages() and settings.accumulation > 1 and size // settings.accumulation < LEAST_MICRO_BATCH:
            micro = f"with accumulation {settings.accumulation} a micro-batch has {size // settings.accumulation} panoramas"
            yield field, size, f"{micro}, and the overlap loss takes its statistics across a micro-batch, which needs {LEAST_MICRO_BATCH}."
