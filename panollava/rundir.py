"""The files of a training: where they lie, how they are written whole, and the note beside each checkpoint. Torch-free."""

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from panollava.errors import BadInput, MissingFile
from panollava.stages import Stage

CHECKPOINTS = "checkpoints"
WHICH_STAGE = "stage %s, in %s"
"""A log says so at its beginning, by which `panollava import` tells it from those of other runs beside it."""
BEST, LAST, FINAL = "best.ckpt", "last.ckpt", "model_final.safetensors"

Kind = Literal["epoch", "step", "last", "best", "final"]


class Architecture(BaseModel):
    """What must agree between a checkpoint and the models it is loaded into. Names are config fields where one exists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vision_model: str
    vision_type: str
    vision_width: int
    vision_layers: int
    image_size: int
    patch_size: int
    language_model: str
    language_type: str
    language_width: int
    language_layers: int
    resampler: str
    resampler_width: int
    resampler_queries: int | None = None
    resampler_layers: int | None = None
    resampler_heads: int | None = None
    pool: int
    views: int
    lora_r: int = 0
    lora_alpha: int | None = None
    lora_targets: tuple[str, ...] | None = None


class Trained(BaseModel):
    """What one stage has done to some weights."""

    model_config = ConfigDict(frozen=True)

    stage: Stage
    step: int
    epoch: float
    loss: str
    batch_size: int
    lr: float
    lora_r: int = 0


class CheckpointNote(BaseModel):
    """The `.json` beside a checkpoint: what a process without torch may know of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Stage
    kind: Kind
    step: int
    epoch: float
    metrics: dict[str, float] = {}
    sha256: str
    size: int
    created_at: datetime
    architecture: Architecture
    config: dict[str, Any]
    tensors: dict[str, list[int]]
    beside: dict[str, str] = Field(
        {}, description="Setting -> fingerprint of what the weights have learned beside and the file does not hold; empty where it was not kept."
    )
    history: tuple[Trained, ...] = Field((), description="The stages behind the weights, this one last; empty where it was not kept.")


def stage_dir(output_dir: str | Path, name: str, stage: Stage) -> Path:
    """`runs/vlm_vision`"""
    return Path(output_dir) / f"{name}_{stage}"


def log_path(log_dir: str | Path, stage: Stage | None, now: datetime) -> Path:
    """`logs/stage1_vision_20261123_101500.log`, or `logs/full_pipeline_...log` for the whole chain."""
    name = "full_pipeline" if stage is None else f"stage{stage.number}_{stage}"
    return Path(log_dir) / f"{name}_{now:%Y%m%d_%H%M%S}.log"


def make_directory(path: Path, flag: str = "") -> None:
    """Make a directory if need be. Raises BadInput where nothing can be written, naming the flag of another one if there is one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    except OSError as error:
        other = f"another directory with {flag}" if flag else "another directory"
        raise BadInput(f"{path}: cannot be written ({error.strerror}); name {other}.") from None


def check_replaceable(directory: Path) -> None:
    """Whether a directory that appears whole can take this place; makes its parents. Raises BadInput where nothing can be written."""
    make_directory(directory.parent)
    if directory.is_dir():
        make_directory(directory)


def write_whole(path: Path, data: str | bytes) -> None:
    """Readers see the old file or the new one, never part of either, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def link_whole(source: Path, target: Path) -> None:
    """Give a checkpoint a second name (best, last) without a second copy where the file system can; copy where not."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        part.write_bytes(source.read_bytes())
    part.replace(target)


def clear_parts(checkpoints: Path) -> None:
    """Remove what a process that was killed while writing has left: files that nobody will ever finish."""
    for part in checkpoints.glob("*.part"):
        part.unlink()


def keep(checkpoint: Path) -> None:
    """Let a checkpoint stay although its trainer, if that is at work, makes room for newer ones. Raises FileNotFoundError for one that is gone."""
    _keep_path(checkpoint).touch()
    if not checkpoint.exists():
        _keep_path(checkpoint).unlink(missing_ok=True)
        raise FileNotFoundError(f"{checkpoint}: its trainer has removed it to make room.")


def make_room(checkpoint: Path) -> bool:
    """Remove a checkpoint and its note, the file first: a note without one is nothing. False if it is to stay, or is not there."""
    if _keep_path(checkpoint).exists() or not checkpoint.exists():
        return False
    going = checkpoint.with_name(checkpoint.name + ".part")
    checkpoint.replace(going)
    if _keep_path(checkpoint).exists():  # whoever asks after this finds no checkpoint
        going.replace(checkpoint)
        return False
    going.unlink()
    note_path(checkpoint).unlink(missing_ok=True)
    return True


def _keep_path(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".keep")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_path(checkpoint: Path) -> Path:
    """`best.ckpt` -> `best.ckpt.json`"""
    return checkpoint.with_name(checkpoint.name + ".json")


def read_note(checkpoint: Path) -> CheckpointNote:
    """The note beside a checkpoint. Raises BadInput when the checkpoint or its note is missing or unreadable."""
    if not checkpoint.is_file():
        raise MissingFile(f"{checkpoint}: there is no such checkpoint.")
    if checkpoint.suffix not in (".ckpt", ".safetensors"):
        raise BadInput(f"{checkpoint}: not a checkpoint, which is a .ckpt or a .safetensors file.")
    path = note_path(checkpoint)
    try:
        return CheckpointNote.model_validate_json(path.read_bytes())
    except OSError:
        raise BadInput(f"{checkpoint}: {path.name} is missing beside it, so nothing says what the checkpoint holds.") from None
    except ValidationError as error:
        raise BadInput(f"{path}: not a checkpoint note ({error.error_count()} errors, the first: {error.errors()[0]['msg']}).") from None


def verify(checkpoint: Path) -> CheckpointNote:
    """The note of a checkpoint whose bytes are the ones that were written. Raises BadInput for a torn or altered file."""
    note = read_note(checkpoint)
    size = checkpoint.stat().st_size
    if size != note.size or sha256(checkpoint) != note.sha256:
        raise BadInput(f"{checkpoint}: damaged: {size:,} bytes whose checksum is not the one in {note_path(checkpoint).name} ({note.size:,} bytes).")
    return note


def last_good(checkpoints: Path, on_damaged: Callable[[BadInput], None] = lambda _: None) -> Path | None:
    """The furthest checkpoint in a directory that is whole; a process killed while saving may have left a torn one. None if there is none.

    Checkpoints that were left behind, because the training went on from one before them, come after those of the way it has gone since.
    """
    notes: dict[Path, CheckpointNote] = {}
    for path in checkpoints.glob("*.ckpt"):
        try:
            notes[path] = read_note(path)
        except BadInput as error:
            on_damaged(error)
    newest = notes.get(checkpoints / LAST)
    for path in sorted(notes, key=lambda each: (not _is_left_behind(notes[each], newest), notes[each].step, each), reverse=True):
        try:
            verify(path)
            return path
        except BadInput as error:
            on_damaged(error)
    return None


def _is_left_behind(note: CheckpointNote, newest: CheckpointNote | None) -> bool:
    """Whether it is of an earlier moment and yet of a later step than last.ckpt, which follows every checkpoint."""
    return newest is not None and note.step > newest.step and note.created_at < newest.created_at


LORA_FIELDS = {"lora_r", "lora_alpha", "lora_targets"}
VISION_FIELDS = {"vision_type", "vision_width", "vision_layers", "image_size", "patch_size"}


def check_same_architecture(checkpoint: Path, stage: Stage, theirs: Architecture, ours: Architecture) -> None:
    """Raises BadInput naming each field in which a checkpoint and a run differ.

    A checkpoint of stage vision holds nothing but the encoder, so only that must agree. Two names of equal models may differ.
    """
    fields = VISION_FIELDS if stage is Stage.vision else Architecture.model_fields.keys() - {"vision_model", "language_model"}
    if stage is not Stage.finetune or not theirs.lora_r:
        fields = fields - LORA_FIELDS  # only a finetune has adapters, and one without may be given some
    pairs = [(field, getattr(theirs, field), getattr(ours, field)) for field in Architecture.model_fields if field in fields]
    if different := [f"{field} is {there} there and {here} here" for field, there, here in pairs if there != here]:
        raise BadInput(f"{checkpoint}: made with another architecture: {'; '.join(different)}.")


def now() -> datetime:
    return datetime.now(UTC)
