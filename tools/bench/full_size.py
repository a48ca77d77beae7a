"""Stages `resampler` and `finetune` of the default models' shapes beside Hugging Face's Trainer on the same model: python -m tools.bench.full_size

Random weights, so nothing is downloaded; the demo's tokenizer and its panoramas stand in. Both loops see the same number of samples with the
same precision, optimizer and learning rate. Meant for a GPU; `--tiny` shows anywhere that it works.
"""

import argparse
import shutil
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel, Trainer, TrainerCallback, TrainingArguments

from panollava import events
from panollava.config import RunConfig, parse
from panollava.data.make_demo import make_demo
from panollava.events import Metric
from panollava.model.panollava import Batch, PanoLlava, freeze
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.presets import DEMO_MODELS
from panollava.stages import RECIPES, Stage
from panollava.training.data import Collate, Samples, load_split
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest
from panollava.views import Cutter

SKIPPED = 3
"""Steps at the start that are not measured: memory is found and kernels are chosen in them."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.full_size", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="The demo's shapes.")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, batch {options.batch_size}, medians of {options.steps - SKIPPED} steps\n")
    print("| stage | HF Trainer, samples/s | ours, samples/s | ratio | ours, tokens/s | data wait, % | MFU, % |\n|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as root:
        models = Path(root) / "models"
        write_models(models, tiny=options.tiny)
        make_demo(Path(root) / "data", train=max(8, options.batch_size), valid=1, test=1)
        for stage in (Stage.resampler, Stage.finetune):
            print(compare(run_config(Path(root), stage, options.steps, options.batch_size), stage, Path(root) / stage), flush=True)
    return 0


def write_models(directory: Path, *, tiny: bool) -> None:
    """google/siglip-base-patch16-224 and Qwen/Qwen2.5-0.5B as their config files have them, or the demo's models."""
    if tiny:
        shutil.copytree(DEMO_MODELS, directory)
        return
    vision = SiglipVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vision_use_head=False)
    language = Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        tie_word_embeddings=True, max_position_embeddings=32768,
    )  # fmt: skip
    SiglipVisionModel(vision).save_pretrained(directory / "vision")
    Qwen2ForCausalLM(language).save_pretrained(directory / "language")
    processor = (DEMO_MODELS / "vision" / "preprocessor_config.json").read_text().replace("32", "224")
    (directory / "vision" / "preprocessor_config.json").write_text(processor)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO_MODELS / "language" / name, directory / "language" / name)


def run_config(root: Path, stage: Stage, steps: int, batch_size: int) -> RunConfig:
    settings = {"epochs": steps, "max_steps": steps, "batch_size": batch_size, "lr": 1e-5, "warmup_ratio": 0.0, "min_lr_ratio": 1.0}
    return parse(
        {
            "vision_model": str(root / "models" / "vision"), "language_model": str(root / "models" / "language"), "data_dir": str(root / "data"),
            "stage": str(stage), "stages": {str(stage): settings}, "example_predictions": 0,
        }
    )  # fmt: skip


def compare(config: RunConfig, stage: Stage, directory: Path) -> str:
    """One row of the table."""
    theirs = their_samples_per_second(config, stage, directory / "theirs")
    train_stage(StageJob(config, stage, directory / "ours"), StopRequest(directory / "ours"))
    said = [each.values for _, each in events.read(directory / "ours" / events.EVENTS_FILE) if isinstance(each, Metric)]
    ours = {name: median(values[name] for values in said[SKIPPED:] if name in values) for name in said[0]}
    speed, mfu = ours["samples_per_second"], f"{100 * ours['mfu']:.1f}" if "mfu" in ours else "not known"
    return (
        f"| {stage} | {theirs:.1f} | {speed:.1f} | {speed / theirs:.2f} | {ours['tokens_per_second']:,.0f} | {100 * ours['data_wait']:.1f} | {mfu} |"
    )


class _Loss(nn.Module):
    """The same model as Hugging Face's Trainer wants it: named tensors in, a dictionary with the loss out."""

    accepts_loss_kwargs = False

    def __init__(self, model: PanoLlava) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {"loss": self.model(Batch(**batch)).mean}


class _Clock(TrainerCallback):
    """When each step was over on the device."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # our loop reads its loss in every step, which does the same
        self.ends.append(perf_counter())


def their_samples_per_second(config: RunConfig, stage: Stage, directory: Path) -> float:
    settings, built, clock = config.stages[stage], build(config), _Clock()
    freeze(built.model, RECIPES[stage].trains)
    split = load_split(config.csvs("train"), None, 0.0, Cutter(built.layout, built.architecture.image_size), lambda done, total: None)
    collate = Collate(split, Prompter(built.tokenizer, built.image_tokens, settings.max_text_length))
    has_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(directory), max_steps=settings.max_steps or 1, per_device_train_batch_size=settings.batch_size, learning_rate=settings.lr,
        weight_decay=settings.weight_decay, adam_beta2=0.95, lr_scheduler_type="constant", bf16=has_gpu, use_cpu=not has_gpu, report_to=[],
        logging_strategy="no", save_strategy="no", remove_unused_columns=False, dataloader_drop_last=True, disable_tqdm=True, seed=config.seed,
    )  # fmt: skip
    Trainer(
        _Loss(built.model), arguments, train_dataset=Samples(split, by_row=True), data_collator=lambda pairs: vars(collate(pairs)), callbacks=[clock]
    ).train()
    return settings.batch_size / median(after - before for before, after in zip(clock.ends[SKIPPED - 1 :], clock.ends[SKIPPED:], strict=False))


if __name__ == "__main__":
    sys.exit(main())
