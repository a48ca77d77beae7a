"""Named starting points for a run: values that go over the schema's defaults and under what the user sets. Torch-free."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEMO_MODELS = Path(__file__).parent / "demo_models"


@dataclass(frozen=True)
class Preset:
    """What a form and a help text say of a starting point, and its values."""

    title: str
    description: str
    values: dict[str, Any]


STARTING_POINTS = {
    "demo": Preset(
        "Demo",
        "Tiny models on the PanoShapes demo data, in minutes. Its learning rates would be far too high for full-size models.",
        {
            "vision_model": str(DEMO_MODELS / "vision"),
            "language_model": str(DEMO_MODELS / "language"),
            "resampler_width": 128,
            "expander_width": 256,
            "stages": {
                "vision": {"epochs": 2, "batch_size": 32, "lr": 1e-3, "weight_decay": 0.01},
                "resampler": {"epochs": 1, "batch_size": 64, "lr": 2e-3, "vision_lr": 2e-4, "weight_decay": 0.01, "min_lr_ratio": 0.05},
                "finetune": {"epochs": 1, "batch_size": 64, "lr": 5e-4, "weight_decay": 0.01, "min_lr_ratio": 0.05},
            },
        },
    ),
    "full": Preset("Full chain", "All three stages, each from the best checkpoint of the one before it.", {"stage": "all"}),
    "vision": Preset("Vision only", "Stage 1: VICReg on the overlap of neighbouring views.", {"stage": "vision"}),
    "resampler": Preset(
        "Resampler only", "Stage 2: vision encoder, resampler and projection learn to speak to the language model.", {"stage": "resampler"}
    ),
    "finetune": Preset("Finetune only", "Stage 3: resampler and projection; the encoders stay as they are.", {"stage": "finetune"}),
    "continue": Preset("Continue from a checkpoint", "Finetune from the weights of a checkpoint that you choose.", {"stage": "finetune"}),
}
"""`demo` trains tiny models on PanoShapes in minutes. Its learning rates are its own: they are 10 to 200 times the defaults, which are
meant for full-size pretrained models and would leave these at chance."""

PRESETS: dict[str, dict[str, Any]] = {name: preset.values for name, preset in STARTING_POINTS.items()}
