"""What the cache saves: the views of a panorama, and a step of finetune on the tiny models with the frozen encoder's features."""

import csv
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image as pil

from panollava.config import RunConfig, parse
from panollava.data.cache import Entries, views_recipe
from panollava.data.images import Reading, read_panorama
from panollava.data.make_demo import make_demo
from panollava.data.room import Room
from panollava.model.parts import build
from panollava.model.text import Prompter
from panollava.presets import PRESETS
from panollava.stages import Stage
from panollava.training.data import Access, Collate, Plan, Samples, load_split
from panollava.training.features import encode_missing, features_of
from panollava.training.module import StageModule
from panollava.views import Cutter
from tools.bench.lines import Pair, line
from tools.bench.views import LAYOUT, SIZE, scene

PANORAMAS, BATCH, WIDTH = 32, 8, 2048
STAGE = Stage.finetune


@line("8 views of 224 of a JPEG of 4096x2048, from the cache", against="decoded and cut", at_least=20)
def views_from_the_cache() -> Pair:
    """The checksum is compared each time, as when a run reads its first epoch."""
    directory, cutter = Path(mkdtemp()), Cutter(LAYOUT, SIZE)
    pil.fromarray(scene(4096)).save(directory / "a.jpg")
    entries = Entries(Room(directory, 10**9), "views", views_recipe(cutter, Reading()))
    panorama = read_panorama(directory / "a.jpg")
    entries.put(panorama.picture.sha256, cutter(panorama.pixels))

    def read() -> Any:
        return np.array(Entries(entries.room, "views", entries.recipe).get(panorama.picture.sha256))

    return Pair(read, lambda: cutter(read_panorama(directory / "a.jpg").pixels))


@line("8 samples of finetune, tiny models, features from the cache", against="panoramas of 2048x1024 decoded, cut and encoded", at_least=2)
def finetune_with_features() -> Pair:
    return _with_and_without_features(_table(Path(mkdtemp())))


@line("8 samples of the demo's finetune, features from the cache", against="its panoramas of 512x256 decoded, cut and encoded", at_least=2)
def demo_with_features() -> Pair:
    """What is left is the language model, which both have: it sets how much a cache can save here."""
    directory = Path(mkdtemp()) / "demo"
    make_demo(directory, train=8 * PANORAMAS, valid=1, test=1)  # four questions on each, so that few of a batch share one
    return _with_and_without_features(directory / "train.csv")


def _with_and_without_features(table: Path) -> Pair:
    """Two equal models: each step of either moves its own weights."""
    config, room = parse(PRESETS["demo"]), Room(Path(mkdtemp()), 10**9)
    return Pair(_steps(config, table, room), _steps(config, table, None))


def _steps(config: RunConfig, table: Path, room: Room | None) -> Callable[[], Any]:
    """A function that trains on the next batch, drawn as a training draws them and the same ones for everybody."""
    built, device = build(config), torch.device("cpu")
    torch.set_num_threads(1)
    module = StageModule(built, config, STAGE, steps=1000)
    module.train()
    cutter = Cutter(built.layout, built.architecture.image_size)
    split = load_split(table, None, 0.0, cutter, lambda done, total: None, access=Access(room=room))
    collate = Collate(split, Prompter(built.tokenizer, built.image_tokens, config.stages[STAGE].max_text_length))
    if room:
        features = features_of(built.model, room, views_recipe(cutter, Reading()), split.index.pictures, "32-true", device)
        encode_missing(features, built.model, split.index.used_images, split.panoramas.__getitem__, device, lambda done, total: None)
        collate = Collate(split, collate.prompter, features)
    optimizer, samples = module.configure_optimizers(), Samples(split, by_row=True)
    batches = cycle(Plan(len(samples), BATCH, epochs=1, seed=0).batches(0))

    def step() -> None:
        loss, _, _ = module.measure(collate([samples[i] for i in next(batches)]))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def _table(directory: Path) -> Path:
    """One question for each of some panoramas."""
    whole, path = scene(WIDTH), directory / "train.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["url", "query", "annotation"])
        for number in range(PANORAMAS):
            cv2.imwrite(str(directory / f"{number}.jpg"), np.roll(whole, number * 8, axis=1))
            rows.writerow([f"{number}.jpg", "What is in front of you?", "A red circle is in front of me, and a blue square is behind me."])
    return path
