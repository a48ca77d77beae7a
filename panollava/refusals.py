"""All that speaks against a run, at once: settings, tables, models, text budget, and the checkpoint it starts from. Torch-free.

`panollava plan` asks here, and so does the manager, which has looked before at what of it users may name.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from panollava import architecture, budget, rundir
from panollava.architecture import Outline
from panollava.config import RunConfig
from panollava.data.index import locate
from panollava.data.table import Problem, Row, is_remote, listed, scan
from panollava.errors import BadInput
from panollava.preflight import Counts, shared_cells
from panollava.rundir import Architecture, CheckpointNote
from panollava.stages import FEWEST, RECIPES
from panollava.template import check_room

MODELS = ("vision_model", "language_model")


class Refusal(BaseModel):
    """A dotted field and what is wrong with it."""

    field: str
    message: str


@dataclass(frozen=True)
class Table:
    """A table that was read, and the file behind each url that has one."""

    field: str
    csv: Path
    rows: Sequence[Row]
    paths: Mapping[str, Path]


class Examination:
    """Looks at everything a run names but the `closed` fields, and keeps what it found: refusals, and what figures are made from."""

    def __init__(
        self, config: RunConfig, resume: str | None = None, *,
        closed: Collection[str] = (), may_fetch: bool = False, read_note: Callable[[str], CheckpointNote] = lambda path: rundir.read_note(Path(path)),
    ) -> None:  # fmt: skip
        """`may_fetch`: a model of the hub that is not on this machine is no refusal. `read_note` reads the note beside a checkpoint."""
        self.config, self._closed, self._may_fetch, self._read_note = config, closed, may_fetch, read_note
        self.refusals: list[Refusal] = []
        self.outline: Outline | None = None
        self.counts: Counts | None = None
        self.tables: list[Table] = []
        self._architecture: Architecture | None = None
        with self._at("stage"):
            config.check()
        self.makes_sense = not self.refusals
        self._models()
        self.counts = self._split("csv_train", config.csvs("train"))
        validated = self._split("csv_val", config.csvs("valid"))
        self._images()
        self._validated_images(validated)
        for field, checkpoint in (("init_from", config.init_from), ("resume", None if resume == "auto" else resume)):
            if checkpoint and field not in closed:
                with self._at(field):
                    self._start(checkpoint)

    @contextmanager
    def _at(self, field: str) -> Iterator[None]:
        """Look at something; what is wrong with it is this field's, unless the error names its own."""
        try:
            yield
        except BadInput as error:
            name, _, why = str(error).partition(": ")
            own = (name, why) if name in RunConfig.model_fields else (field, str(error))
            self.refusals += [Refusal(field=name, message=why) for name, why in error.fields or [own]]

    def _named(self, field: str) -> str:
        return "data_dir" if self.config.data_dir and not getattr(self.config, field) else field

    # Models

    def _models(self) -> None:
        for field in MODELS:
            if field not in self._closed:
                with self._at(field):
                    self._look_for(getattr(self.config, field))
        if "language_model" not in self._closed:
            self._texts()
        if any(field in self._closed for field in MODELS):
            return
        with self._at("resampler"):
            self._architecture = architecture.of(self.config)
            if self.makes_sense:
                self.outline = architecture.outline(self.config)
        if self.outline:
            self._cells(self.outline.architecture)

    def _look_for(self, model: str) -> None:
        if architecture.found(model, "config.json"):
            return
        if architecture.is_directory(model):
            raise BadInput(f"{model} is no model directory: it has no config.json.")
        if not self._may_fetch:
            raise BadInput(f"{model}: it is not in the hub's cache. Fetch it with `hf download`, or name a directory.")

    def _texts(self) -> None:
        """Stages whose text budget the language model's own turns eat up."""
        around = None
        with self._at("language_model"):
            around = budget.around(self.config.language_model)
        for stage in self.config.stage if around is not None else ():
            if RECIPES[stage].needs_text:
                with self._at(f"stages.{stage}.max_text_length"):
                    check_room(self.config.stages[stage].max_text_length, around or 0)

    def _cells(self, at: Architecture) -> None:
        """Views that overlap by less than a cell of the encoder's grid."""
        grid = at.image_size // at.patch_size
        if any(self.config.overlap_loss in self.config.losses(stage) for stage in self.config.stage) and not shared_cells(self.config, grid):
            text = f"neighbours of these {self.config.views} views share no whole cell of a {grid} x {grid} grid; ask for more."
            self.refusals.append(Refusal(field="overlap", message=text))

    # Tables

    def _split(self, field: str, csvs: Sequence[Path]) -> Counts | None:
        """None where it cannot be used."""
        if field not in self._closed:
            with self._at(self._named(field)):
                return self._count([self._read(field, csv) for csv in csvs])
        return None

    def _read(self, field: str, csv: Path) -> tuple[Table, list[Problem]]:
        """Images are looked for and not opened; what may be downloaded is taken to be there."""
        rows, problems = scan(csv, need_annotation=any(RECIPES[stage].needs_text for stage in self.config.stage))
        root = Path(self.config.image_root) if self.config.image_root else None
        local = [row for row in rows if not (self.config.allow_remote and is_remote(row.url))]
        paths, reasons = ({}, {}) if "image_root" in self._closed else locate(local, csv, root)
        table = Table(self._named(field), csv, [row for row in rows if row.url not in reasons], paths)
        self.tables.append(table)
        missing = (Problem(row.line, "url", reasons[row.url]) for row in rows if row.url in reasons)
        return table, sorted([*problems, *missing], key=lambda each: each.line)

    def _count(self, read: Sequence[tuple[Table, list[Problem]]]) -> Counts:
        """Of a split. Raises BadInput where more rows are bad than max_bad_frac allows."""
        good = [str(table.paths.get(row.url, row.url)) for table, _ in read for row in table.rows]
        lost = sum(len({problem.line for problem in problems}) for _, problems in read)
        if not good or lost > self.config.max_bad_frac * (len(good) + lost):
            raise BadInput(listed([problem.at(table.csv) for table, problems in read for problem in problems]))
        return Counts(len(good), len(set(good)))

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

    def _validated_images(self, counts: Counts | None) -> None:
        """A stage that is the overlap loss alone is validated by it."""
        stages = [stage for stage in self.config.stage if RECIPES[stage].loss == "overlap"]
        if counts and stages and counts.images < FEWEST:
            text = f"it has {counts.images} different panoramas, and stage {stages[0]} compares at least {FEWEST} when it is validated."
            self.refusals.append(Refusal(field=self._named("csv_val"), message=text))

    # The checkpoint it starts from

    def _start(self, checkpoint: str) -> None:
        path = Path(checkpoint)
        if path.suffix == ".safetensors" and path.is_file() and not rundir.note_path(path).is_file():
            return  # it is complete, and what it says of itself is read with its tensors
        note, first = self._read_note(checkpoint), self.config.stage[0]
        if self._architecture:
            rundir.check_same_architecture(path, note.stage, note.architecture, self._architecture)
        if note.stage.number > first.number:
            raise BadInput(f"{checkpoint} is of stage {note.stage}, which cannot start the earlier stage {first}.")
