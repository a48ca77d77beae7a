"""FLOPs of a sample: the specification's own figures, what torch counts, and devices known by name."""

import json
from collections.abc import Callable

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from panollava.flops import Language, Vision, peak, per_sample
from panollava.model.panollava import Batch
from panollava.model.parts import Built
from panollava.presets import DEMO_MODELS
from panollava.stages import Stage

SIGLIP = Vision.of({"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "patch_size": 16}, image_size=224, views=8)
QWEN = Language.of(
    {
        "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151936,
    }
)  # fmt: skip
TEXT, SUPERVISED = 64, 48


@pytest.mark.parametrize(
    ("stage", "image_tokens", "gigaflops"),
    [
        (Stage.vision, 0, 839),
        (Stage.resampler, 392, 1535),
        (Stage.resampler, 1568, 3430),
        (Stage.finetune, 1568, 2871),
        (Stage.finetune, 392, 976),
        (Stage.finetune, 128, 584),
        (Stage.finetune, 64, 490),
    ],
)
def test_the_default_models_cost_what_the_specification_says(stage: Stage, image_tokens: int, gigaflops: float) -> None:
    assert per_sample(stage, SIGLIP, QWEN, image_tokens + TEXT, SUPERVISED) / 1e9 == pytest.approx(gigaflops, rel=0.002)


def counted(forward: Callable[[], object]) -> int:
    """What torch counts, attention written out as two products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return counter.get_total_flops()


def test_torch_counts_the_same_operations_in_the_vision_encoder(built: Built, batch: Batch) -> None:
    ours = Vision.of(json.loads((DEMO_MODELS / "vision" / "config.json").read_text()), image_size=32, views=8)
    assert counted(lambda: built.model.patches(batch.pixels)) == len(batch.pixels) * ours.forward


def test_torch_counts_the_same_operations_in_the_language_model_but_for_the_half_of_attention_that_is_masked(built: Built, batch: Batch) -> None:
    ours = Language.of(json.loads((DEMO_MODELS / "language" / "config.json").read_text()))
    (samples, tokens), language = batch.input_ids.shape, built.model.language
    assert language is not None
    masked = 2 * ours.layers * ours.queries * tokens**2
    assert counted(lambda: language(input_ids=batch.input_ids)) == samples * (ours.forward(tokens, tokens) + masked)


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA RTX A6000", 155),
        ("NVIDIA GeForce GTX 1080", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_a_device_is_known_by_its_name_or_not_at_all(device: str, teraflops: float | None) -> None:
    assert peak(device) == (None if teraflops is None else teraflops * 1e12)
