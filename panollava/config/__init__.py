"""The one schema of a run: behind the launch form, the REST body, the command line's flags and `config.json`.

Torch-free. A file's `[vision]`, `[resampler]` and `[finetune]` tables are the stages' sections and `[model]` holds
plain fields, because a TOML file cannot have both `resampler = "mlp"` and a table `[resampler]` at its top.
"""

from panollava.config.check import parse, validated
from panollava.config.evaluate import Control, EvaluateConfig
from panollava.config.run import RunConfig
from panollava.config.stage import StageConfig, StageConfigs
from panollava.config.values import CONFIG_FILE, flat, from_file, merge, put

__all__ = [
    "CONFIG_FILE",
    "Control",
    "EvaluateConfig",
    "RunConfig",
    "StageConfig",
    "StageConfigs",
    "flat",
    "from_file",
    "merge",
    "parse",
    "put",
    "validated",
]
