"""All that speaks against a run, at once: settings, tables, models, text budget, and the checkpoint it starts from. Torch-free."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from panollava import architecture, budget, rundir
from panollava.architecture import Outline
from panollava.config import RunConfig
from panollava.data.index import locate
from panollava.data.table import Problem, Row, is_remote, listed, scan
from panollava.errors import BadInput
from panollava.preflight import Counts, shared_cells
from panollava.stages import RECIPES, Stage
from panollava.template import check_room

MODELS = ("vision_model", "language_model")
FEWEST = 4
"""Panoramas below which an overlap loss has no statistics across images."""


class Refusal(BaseModel):
    """A dotted field and what is wrong with it."""

    field: str
    message: str


def text_refusals(config: RunConfig) -> Iterator[Refusal]:
    """Stages whose text budget the language model's own turns eat up."""
    seen = _Seen()
    around = None
    with seen.to("language_model"):
        around = budget.around(config.language_model)
    for stage in config.stage if around is not None else ():
        if RECIPES[stage].needs_text:
            with seen.to(f"stages.{stage}.max_text_length"):
                check_room(config.stages[stage].max_text_length, around or 0)
    yield from seen.refusals


def cell_refusals(config: RunConfig, outline: Outline) -> Iterator[Refusal]:
    """Views that overlap by less than a cell of the encoder's grid."""
    grid = outline.architecture.image_size // outline.architecture.patch_size
    if any(config.overlap_loss in config.losses(stage) for stage in config.stage) and not shared_cells(config, grid):
        text = f"neighbours of these {config.views} views share no whole cell of a {grid} x {grid} grid; ask for more."
        yield Refusal(field="overlap", message=text)


class Examination:
    """Looks at everything a run names, and keeps what it found: refusals, and what figures are made from."""

    def __init__(self, config: RunConfig, resume: str | None = None) -> None:
        self.config, self._seen = config, _Seen()
        self.outline: Outline | None = None
        self.counts: Counts | None = None
        with self._seen.to("stage"):
            config.check()
        self.makes_sense = not self._seen.refusals
        self._models()
        for field, split in (("csv_train", "train"), ("csv_val", "valid")):
            with self._seen.to(self._named(field)):
                counts = self._tables(config.csvs("train" if split == "train" else "valid"))
                self.counts = counts if split == "train" else self.counts
        self._images()
        for field, checkpoint in (("init_from", config.init_from), ("resume", None if resume == "auto" else resume)):
            if checkpoint:
                with self._seen.to(field):
                    self._start(field, Path(checkpoint))

    @property
    def refusals(self) -> list[Refusal]:
        return self._seen.refusals

    def _named(self, field: str) -> str:
        return "data_dir" if self.config.data_dir and not getattr(self.config, field) else field

    def _models(self) -> None:
        for field in MODELS:
            name = getattr(self.config, field)
            if architecture.found(name, "config.json") is None:
                where = "there is no such directory with a config.json, and it is not in the hub's cache"
                self.refusals.append(Refusal(field=field, message=f"{name}: {where}. Fetch it with `hf download`, or name a directory."))
        self.refusals.extend(text_refusals(self.config))
        if not self.makes_sense:
            return
        with self._seen.to("resampler"):
            self.outline = architecture.outline(self.config)
        if self.outline:
            self.refusals.extend(cell_refusals(self.config, self.outline))

    def _tables(self, csvs: Sequence[Path]) -> Counts:
        """Of a split. Raises BadInput where more rows are bad than max_bad_frac allows. Images are looked for and not opened."""
        good, lost, images, bad = 0, 0, set[str](), list[str]()
        for csv in csvs:
            if not csv.is_file():
                raise BadInput(f"{csv}: there is no such file.")
            rows, problems = scan(csv, need_annotation=any(RECIPES[stage].needs_text for stage in self.config.stage))
            urls, reasons = self._located(rows, csv)
            good += sum(row.url in urls for row in rows)
            images |= set(urls.values())
            wrong = [*problems, *(Problem(row.line, "url", reasons[row.url]) for row in rows if row.url in reasons)]
            lost += len({problem.line for problem in wrong})
            bad += [problem.at(csv) for problem in sorted(wrong, key=lambda each: each.line)]
        if not good or lost > self.config.max_bad_frac * (good + lost):
            raise BadInput(listed(bad))
        return Counts(good, len(images))

    def _located(self, rows: Sequence[Row], csv: Path) -> tuple[dict[str, str], dict[str, str]]:
        """The file or address behind each url, and why there is none for the others. What may be downloaded is taken to be there."""
        may_download = {row.url: row.url for row in rows if self.config.allow_remote and is_remote(row.url)}
        root = Path(self.config.image_root) if self.config.image_root else None
        paths, reasons = locate([row for row in rows if row.url not in may_download], csv, root)
        return may_download | {url: str(path) for url, path in paths.items()}, reasons

    def _images(self) -> None:
        """An overlap loss compares panoramas; where they are shared out it needs whole batches."""
        for stage in self.config.stage:
            settings, ranks = self.config.stages[stage], self.config.devices * self.config.num_nodes
            if self.counts is None or self.config.overlap_loss not in self.config.losses(stage):
                continue
            wanted = settings.batch_size if settings.accumulation > 1 or ranks > 1 else FEWEST
            if self.counts.images < wanted:
                text = f"it has {self.counts.images} different panoramas, and stage {stage} compares at least {wanted}."
                self.refusals.append(Refusal(field=self._named("csv_train"), message=text))

    def _start(self, field: str, checkpoint: Path) -> None:
        if not checkpoint.is_file():
            raise BadInput(f"{checkpoint}: there is no such checkpoint.")
        if checkpoint.suffix == ".safetensors":
            return  # it is complete, and what it says of itself is read with its tensors
        note, first = rundir.read_note(checkpoint), self.config.stage[0]
        if self.outline:
            rundir.check_same_architecture(checkpoint, note.stage, note.architecture, self.outline.architecture)
        if Stage(note.stage).number > first.number:
            raise BadInput(f"{checkpoint} is of stage {note.stage}, which cannot start the earlier stage {first}.")


class _Seen:
    """What an examination has found so far."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []

    @contextmanager
    def to(self, field: str) -> Iterator[None]:
        """Look at something; what is wrong with it is this field's, unless the error names its own."""
        try:
            yield
        except BadInput as error:
            told = error.fields or ((field, str(error)),)
            self.refusals += [Refusal(field=name, message=why) for name, why in told]
