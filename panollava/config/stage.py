"""How one stage is optimised, and the table of defaults."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator

from panollava.config.fields import STRICT, Common, Optimizer, unit
from panollava.stages import Stage


class StageConfig(BaseModel):
    """How one stage is optimised."""

    model_config = STRICT

    epochs: Common[int] = Field(ge=1, description="Passes over the training split.")
    batch_size: Common[int] = Field(
        ge=1,
        json_schema_extra=unit("samples"),
        description="Samples per optimizer step, over all devices. Stage vision counts panoramas and needs 4.",
    )
    accumulation: Optimizer[int] = Field(
        1,
        ge=1,
        json_schema_extra=unit("micro-batches"),
        description="Micro-batches whose gradients add up to one step's: less memory, the same batch_size and loss, except in stage vision.",
    )
    lr: Common[float] = Field(gt=0, description="Peak learning rate, reached after warm-up.")
    max_text_length: Common[int] = Field(
        ge=16, json_schema_extra=unit("tokens"), description="Text tokens per sample, template and answer included; image tokens are not counted."
    )
    gate_below: Common[float | None] = Field(
        None,
        description="Start this stage only if the checkpoint of an earlier stage that it starts from reached a val_loss below this; "
        "else it waits for a person, and in a terminal the chain ends there.",
    )

    vision_lr: Optimizer[float | None] = Field(None, gt=0, description="Peak learning rate of the vision encoder; the stage's lr if not set.")
    projector_lr: Optimizer[float | None] = Field(
        None, gt=0, description="Peak learning rate of resampler and projection; the stage's lr if not set. New ones want about 1e-3."
    )
    weight_decay: Optimizer[float] = Field(0.05, ge=0, description="AdamW weight decay; never applied to norms, biases and embeddings.")
    warmup_ratio: Optimizer[float] = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises from zero.")
    min_lr_ratio: Optimizer[float] = Field(0.1, ge=0, le=1, description="Where the cosine ends, as a share of the peak learning rate.")
    grad_clip: Optimizer[float] = Field(1.0, gt=0, description="Largest norm of the gradient; longer ones are scaled down to it.")
    patience: Optimizer[int | None] = Field(
        None, ge=1, json_schema_extra=unit("validations"), description="End the stage after so many validations in a row without a lower val_loss."
    )
    max_steps: Optimizer[int | None] = Field(
        None, ge=1, json_schema_extra=unit("steps"), description="Stop after this many optimizer steps, even inside an epoch."
    )
    save_every_steps: Optimizer[int | None] = Field(
        None, ge=1, json_schema_extra=unit("steps"), description="Also write a step checkpoint every so many steps."
    )
    save_every_minutes: Optimizer[float | None] = Field(
        None, gt=0, json_schema_extra=unit("minutes"), description="Also write a step checkpoint when the last checkpoint is so many minutes old."
    )
    keep_step_checkpoints: Optimizer[int] = Field(
        3,
        ge=1,
        json_schema_extra=unit("checkpoints"),
        description="How many of the regular step checkpoints stay; best, last, epoch checkpoints, those that were asked for and those that are "
        "pinned or in use are never removed.",
    )

    @property
    def micro_batch(self) -> int:
        """Samples whose gradients are computed at once, over all devices."""
        return self.batch_size // self.accumulation


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
