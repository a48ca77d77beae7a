"""The form that asks for an evaluation: its fields from the schema, what stands in them, and errors where they belong."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel
from sqlmodel import Session, case, col, or_, select

from app.artifacts import Notes
from app.checkpoints import service as checkpoints
from app.errors import AppError, Conflict
from app.evaluations import schemas
from app.evaluations import service as evaluations
from app.evaluations.schemas import EvaluationRequest
from app.i18n import _
from app.models import Checkpoint, Evaluation, Run, StageRun
from app.settings import Settings
from panollava.config import Control, EvaluateConfig, RunConfig, validated
from panollava.errors import BadInput
from panollava.stages import Stage

LABELS = {
    "csv": _("Questions"),
    "image_root": _("Directory of the images"),
    "max_new_tokens": _("Longest answer"),
    "batch_size": _("Questions at once"),
    "limit": _("Panoramas at most"),
    "seed": _("Seed"),
}
"""Fields that are one line of text or one number. The rest of the schema has inputs of its own."""
CONTROLS = {
    "blank": _("a grey image"),
    "shuffled": _("another panorama"),
    "rolled": _("turned by 90 degrees"),
    "untrained": _("an untrained resampler"),
    "query_swap": _("another question about the same image"),
}
assert CONTROLS.keys() == set(get_args(Control))
OFFERED = 200
"""Most checkpoints in the list."""
RANKS = {"best": 0, "last": 1, "final": 1}
"""What stands first in the list; any other kind comes after these."""


class Sent(BaseModel):
    """What a browser sends: text, and nothing is missing or wrong yet."""

    checkpoint_id: str = ""
    checkpoint: str = ""
    name: str = ""
    csv: str = ""
    image_root: str = ""
    max_new_tokens: str = ""
    batch_size: str = ""
    limit: str = ""
    seed: str = ""
    controls: list[str] = []
    request_key: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """The fields that are filled in."""
        values = {name: getattr(self, name).strip() for name in (*LABELS, "checkpoint")}
        return {name: value for name, value in values.items() if value} | {"controls": self.controls}


@dataclass(frozen=True)
class Field:
    """One line of the form."""

    name: str
    label: str
    help: str
    is_number: bool
    minimum: int | None
    is_needed: bool


@dataclass(frozen=True)
class Form:
    """The page's form: what it offers, what stands in it, what is wrong with that."""

    sent: Sent
    checkpoints: Sequence[tuple[int, str]]
    tables: Sequence[str]
    errors: Mapping[str, str]
    """By field; the empty name is for what belongs to none."""

    @classmethod
    def make(cls, session: Session, sent: Sent, errors: Mapping[str, str] | None = None) -> Self:
        chosen = int(sent.checkpoint_id) if sent.checkpoint_id.isdigit() else None
        return cls(sent, _offered(session, chosen), _tables(session), errors or {})

    @property
    def fields(self) -> list[Field]:
        return fields()


def fields() -> list[Field]:
    """The schema's own numbers and descriptions."""
    schema = EvaluateConfig.model_json_schema()
    return [_field(name, label, schema["properties"][name], name in schema["required"]) for name, label in LABELS.items()]


def _field(name: str, label: str, spec: Mapping[str, Any], is_needed: bool) -> Field:
    kind = next(each for each in spec.get("anyOf", [spec]) if each["type"] != "null")
    return Field(name, label, _(spec["description"]), kind["type"] == "integer", kind.get("minimum"), is_needed)


def blank(session: Session, checkpoint_id: int | None) -> Form:
    """A form for this checkpoint, filled with the schema's defaults and with a table that is likely meant. Raises NotFound."""
    defaults = {name: _text(field.default) for name, field in EvaluateConfig.model_fields.items() if name in LABELS}
    checkpoint = checkpoints.get(session, checkpoint_id) if checkpoint_id is not None else None
    likely = _beside(session, checkpoint) if checkpoint else _as_before(session)
    chosen = str(checkpoint_id) if checkpoint_id is not None else ""
    return Form.make(session, Sent(**defaults | likely, checkpoint_id=chosen, request_key=secrets.token_urlsafe(16)))


def create(session: Session, reading: Callable[[], Session], sent: Sent, settings: Settings, actor: str) -> Evaluation:
    """The evaluation that the form asks for. Raises AppError or BadInput; `refused` says where to show them."""
    request = validated(
        EvaluationRequest,
        {
            "config": sent.config, "checkpoint_id": sent.checkpoint_id or None, "name": sent.name.strip() or None,
            "request_key": sent.request_key or None,
        },
    )  # fmt: skip
    with reading() as before:
        config = schemas.read(before, request)
    notes = Notes(config.checkpoint)
    return evaluations.create(session, config, settings, actor, request.name, request_key=request.request_key, read_note=notes)


def refused(session: Session, sent: Sent, error: AppError | BadInput) -> Form:
    """The form once more, with what was wrong with it. A key that stands for another request is replaced: nothing was made under the new one."""
    if isinstance(error, Conflict):
        sent = sent.model_copy(update={"request_key": secrets.token_urlsafe(16)})
    found = dict(error.fields) if isinstance(error, BadInput) and error.fields else {_at_fault(sent, str(error)): str(error)}
    return Form.make(session, sent, dict(_placed(name, text) for name, text in found.items()))


def _placed(name: str, text: str) -> tuple[str, str]:
    """`controls.0` is at fault in `controls`; what the form has no field for is named in the text."""
    field = name.split(".")[0]
    if field in Sent.model_fields and field != "request_key":
        return field, text
    return "", f"{name}: {text}" if name else text


def _at_fault(sent: Sent, message: str) -> str:
    """The field that a message begins with, or whose path it begins with; services say which file is wrong by naming it first."""
    for name, value in (sent.config | {"checkpoint": sent.checkpoint}).items():
        if message.startswith(f"{name}: ") or (isinstance(value, str) and value and message.startswith((value, str(Path(value).resolve())))):
            return name
    return ""


def _text(value: Any) -> str:
    return "" if value is None or not isinstance(value, str | int) else str(value)


def _offered(session: Session, chosen: int | None) -> list[tuple[int, str]]:
    """The chosen checkpoint whatever it is, then those that can answer: the best, the last, all others; of each, the newest run first."""
    rank = case(RANKS, value=col(Checkpoint.kind), else_=2)
    query = (
        select(Checkpoint, StageRun.stage, Run.name)
        .join(StageRun, col(StageRun.id) == Checkpoint.stage_id)
        .join(Run, col(Run.id) == Checkpoint.run_id)
        .where(or_(col(StageRun.stage) != Stage.vision, col(Checkpoint.id) == chosen))
        .order_by(col(Checkpoint.id) != chosen, rank, col(Run.id).desc(), col(Checkpoint.id).desc())
        .limit(OFFERED)
    )
    return [(checkpoint.id, _title(checkpoint, Stage(stage), name)) for checkpoint, stage, name in session.exec(query)]


def _title(checkpoint: Checkpoint, stage: Stage, run: str) -> str:
    loss = checkpoint.metrics.get("val_loss")
    title = _("{kind} of {stage}, run {id} ({run}), step {step}").format(
        kind=checkpoint.kind, stage=stage, id=checkpoint.run_id, run=run, step=f"{checkpoint.step:,}"
    )
    return title if loss is None else _("{title}, val_loss {loss}").format(title=title, loss=f"{float(loss):.3f}")


def _tables(session: Session) -> list[str]:
    """Tables of earlier evaluations, to pick from."""
    return list(dict.fromkeys(each.config["csv"] for each in evaluations.page(session, limit=50)))


def _as_before(session: Session) -> dict[str, str]:
    newest = evaluations.page(session, limit=1)
    return {name: _text(newest[0].config.get(name)) for name in ("csv", "image_root")} if newest else {}


def _beside(session: Session, checkpoint: Checkpoint) -> dict[str, str]:
    """The test split beside what the checkpoint's run was trained on, or its validation split."""
    config = validated(RunConfig, session.get_one(Run, checkpoint.run_id).config)
    valid = config.csvs("valid")[0]
    test = valid.with_name("test.csv")
    return {"csv": str(test if test.is_file() else valid), "image_root": _text(config.image_root)}
