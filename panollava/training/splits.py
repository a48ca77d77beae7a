"""The data of a training, ready for its first step: tables read, every image looked at, prompts that fit, and what a frozen encoder sees of it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from panollava import ranks
from panollava.data.cache import views_recipe
from panollava.data.fingerprint import Fingerprint, changed, fingerprint, write_fingerprints
from panollava.data.images import ASPECT_ERROR, ASPECT_WARNING, off_aspect
from panollava.errors import BadInput
from panollava.model.parts import Built
from panollava.model.text import Prompter
from panollava.stages import RECIPES
from panollava.training import data
from panollava.training.devices import precision_of
from panollava.training.features import encode_missing, features_of
from panollava.training.job import StageJob, Voice
from panollava.training.out_of_memory import told
from panollava.views import Cutter

log = logging.getLogger("panollava")

Name = Literal["train", "valid"]
SPLITS: tuple[Name, ...] = ("train", "valid")


def check_prompts(job: StageJob, built: Built) -> None:
    """Also of the stages still to come: what they cannot work with must not wait for the end of this one."""
    for stage in job.config.stage:
        if RECIPES[stage].needs_text:
            Prompter(built.tokenizer, built.image_tokens, job.config.stages[stage].max_text_length)


@dataclass
class Splits:
    """Reads the splits of a training. `on_image` hears of every image, and may raise to end it all."""

    job: StageJob
    built: Built
    voice: Voice
    on_image: data.OnProgress

    def __post_init__(self) -> None:
        self.cutter = Cutter(self.built.layout, self.built.architecture.image_size, self.job.config.supersample)
        self.access = data.access(self.job.config, self.cutter, self.on_image)

    def read(self) -> tuple[data.Collate, data.Collate]:
        """Training and validation data, every image looked at. Raises BadInput for what cannot be trained on."""
        job, built = self.job, self.built
        prompter = Prompter(built.tokenizer, built.image_tokens, job.settings.max_text_length) if job.recipe.needs_text else None
        splits = {name: self._split(name, prompter) for name in SPLITS}
        self._say_what_data(splits)
        return data.Collate(splits["train"], prompter), data.Collate(splits["valid"], prompter)

    def _split(self, name: Name, prompter: Prompter | None) -> data.Split:
        job, config = self.job, self.job.config
        csvs = config.csvs(name)
        log.info("reading the panoramas of %s", ", ".join(map(str, csvs)))
        split = data.load_split(
            csvs, config.image_root, config.max_bad_frac, self.cutter, self.on_image, job.recipe.needs_text,
            access=self.access, need_views="vision" in job.recipe.trains or config.cache != "auto",
        )  # fmt: skip
        if config.overlap_loss in config.losses(job.stage) and (name == "train" or prompter is None):
            data.need_images(csvs, split, self._least_images(name))
        if prompter is not None:
            self._warn_of_cuts(csvs, split, prompter)
        for bad in split.index.bad:
            self.voice.warn(f"left out: {bad}")
        self._warn_of_aspect(csvs, split)
        return split

    def _warn_of_aspect(self, csvs: Sequence[Path], split: data.Split) -> None:
        pictures = [split.index.pictures[image] for image in split.index.used_images]
        off = [each for each in pictures if each and ASPECT_WARNING < off_aspect(each.width, each.height) <= ASPECT_ERROR]
        if off:
            shown = f"{off[0].width} x {off[0].height}"
            names = ", ".join(map(str, csvs))
            self.voice.warn(
                f"{names}: {len(off):,} of {len(pictures):,} images are not quite the 2:1 of a whole panorama, such as one of {shown} pixels."
            )

    def _least_images(self, name: Name) -> int:
        """Statistics across images need four in a batch, and whole batches where they are shared out."""
        settings = self.job.settings
        is_shared = name == "train" and (settings.accumulation > 1 or ranks.count() > 1)
        return settings.batch_size if is_shared else 4

    def _warn_of_cuts(self, csvs: Sequence[Path], split: data.Split, prompter: Prompter) -> None:
        cut = sum(prompter.exchange(row.query, row.annotation).truncated for row in split.index.rows)
        if cut:
            names = ", ".join(map(str, csvs))
            self.voice.warn(f"{names}: {cut:,} of {len(split.index.rows):,} samples are cut to max_text_length {prompter.max_text_length}.")

    def _say_what_data(self, splits: Mapping[Name, data.Split]) -> None:
        """Keep what the run learns from. Raises BadInput where a training that is continued has learned from something else so far."""
        job = self.job
        prints: dict[str, Fingerprint] = {name: fingerprint(job.config.csvs(name), split.index) for name, split in splits.items()}
        for name, each in prints.items():
            self.voice.note(f"{name}: {each}")
        if job.resume and (other := changed(job.resume.parent.parent, prints)):
            raise BadInput(
                f"{job.resume}: cannot be resumed with other data: tables or images of {' and '.join(other)} are not those that it has learned from. "
                "--init-from starts anew from its weights."
            )
        if ranks.is_first():
            write_fingerprints(job.directory, prints)

    def encoded(self, collate: data.Collate) -> data.Collate:
        """With the features of a frozen encoder, so that no step has to compute them."""
        config, built, split, room = self.job.config, self.built, collate.split, self.access.room
        if room is None or config.cache != "auto" or "vision" in self.job.recipe.trains:
            return collate
        device, panoramas = torch.device("cuda" if torch.cuda.is_available() else "cpu"), split.panoramas
        recipe = views_recipe(panoramas.cutter, panoramas.reading)
        features = features_of(built.model, room, recipe, split.index.pictures, precision_of(config).precision, device)
        with told(config, self.job.stage, "features"):
            encode_missing(features, built.model, split.index.used_images, panoramas.__getitem__, device, self.on_image)
        if any(ranks.anywhere(room.is_full)):  # all ranks have finished their part now
            self.voice.warn(
                f"{room.root} is full: cache_gb is {config.cache_gb:g}, or the disk has no more room. The rest is computed in every epoch."
            )
        return replace(collate, features=features)
