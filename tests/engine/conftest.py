"""The tiny real models, and batches of demo data for them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from panollava.config import RunConfig, merge, parse
from panollava.model.panollava import Batch
from panollava.model.parts import Built, build
from panollava.model.text import Prompter
from panollava.presets import PRESETS
from panollava.training.data import Collate, Samples, Split, load_split
from panollava.views import Cutter
from tests.engine import tiny_models


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config(demo_data: Path) -> RunConfig:
    """The demo preset on the small data set, a few steps long."""
    short = {name: {"max_steps": 3, "batch_size": 8} for name in ("vision", "resampler", "finetune")}
    return parse(merge(PRESETS["demo"], {"data_dir": str(demo_data), "stages": short}))


@pytest.fixture(scope="session")
def built(config: RunConfig) -> Built:
    """The model of the demo preset, with an untrained bridge. Shared: tests that change weights build their own."""
    built = build(config)
    built.model.eval()
    return built


@pytest.fixture(scope="session")
def prompter(built: Built) -> Prompter:
    return Prompter(built.tokenizer, built.image_tokens, 64)


@pytest.fixture(scope="session")
def split(built: Built, demo_data: Path) -> Split:
    return load_split(demo_data / "train.csv", None, 0.0, Cutter(built.layout, built.architecture.image_size), lambda done, total: None)


@pytest.fixture(scope="session")
def batch(split: Split, prompter: Prompter) -> Batch:
    """Six questions on three panoramas."""
    pairs = Samples(split, by_row=True).pairs
    return Collate(split, prompter)([pairs[row] for row in (0, 1, 4, 5, 8, 9)])


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a tiny random vision encoder of a family, written once."""
    return cache(lambda model_type: tiny_models.write_encoder(tmp_path_factory.mktemp("vision"), model_type))


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a tiny random language model of a family, written once."""
    return cache(lambda name: tiny_models.write_speaker(tmp_path_factory.mktemp("language"), name))
