"""Named starting points for a run: values that go over the schema's defaults and under what the user sets. Torch-free."""

from pathlib import Path
from typing import Any

DEMO_MODELS = Path(__file__).parent / "demo_models"

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
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
}
"""`demo` trains tiny models on PanoShapes in minutes. Its learning rates are its own: they are 10 to 200 times the defaults, which are
meant for full-size pretrained models and would leave these at chance."""
