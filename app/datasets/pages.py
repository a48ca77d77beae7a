"""Pages: name a table, watch its check, read what came of it. Everything a page shows is in its address."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app import listing
from app.access.permissions import READ
from app.datasets import service as datasets
from app.datasets import tables
from app.datasets.histogram import histogram
from app.datasets.issues import issues, unseen
from app.datasets.routes import result
from app.datasets.service import Checked, Question
from app.deps import SettingsDep, StateDep
from app.errors import AppError, status_of
from app.pages import Frame, FrameDep
from app.settings import Settings
from panollava.data.check import SPLITS
from panollava.errors import BadInput

router = APIRouter(prefix="/datasets", include_in_schema=False, dependencies=[READ])


@dataclass(frozen=True)
class Refusal:
    """Why there is no check, for the field of the form that is at fault."""

    field: str
    message: str
    status: int

    @classmethod
    def of(cls, error: AppError | BadInput) -> "Refusal":
        field, _colon, rest = str(error).partition(": ")
        status = status_of(error)
        if field == "image_root":
            return cls(field, rest, status)
        return cls("csv", rest if field == "csv" else str(error), status)


def question(
    csv: Annotated[str, Query()] = "", image_root: Annotated[str, Query()] = "", need_annotation: Annotated[bool, Query()] = True
) -> Question:  # fmt: skip
    return Question(csv=csv.strip(), image_root=image_root.strip() or None, need_annotation=need_annotation)


QuestionDep = Annotated[Question, Depends(question)]


async def outcome(
    request: Request, state: StateDep, question: QuestionDep, part: str = "", wait: bool = False, fresh: bool = False
) -> Checked | Refusal | None:
    """What is known of this table; nothing yet while its check is to be watched.

    A page that waits does so here, before it has a session: no transaction may stay open for minutes.
    """
    try:
        known = await run_in_threadpool(state.checks.find, state.settings, question)
        if wait or part:
            return known if known and not fresh else await result(request, state, question)
        if fresh or known is None:
            await run_in_threadpool(datasets.glance, state.settings, question)
            return None
        return known
    except (AppError, BadInput) as error:
        return Refusal.of(error)


OutcomeDep = Annotated[Checked | Refusal | None, Depends(outcome)]


@router.get("")
def show_datasets(frame: FrameDep, settings: SettingsDep, question: QuestionDep) -> Response:
    """The form, filled in with what the address has."""
    return _form(frame, settings, question)


@router.get("/check")
def check_dataset(
    outcome: OutcomeDep, frame: FrameDep, settings: SettingsDep, question: QuestionDep, part: str = "", issue: str = "", fresh: bool = False
) -> Response:
    """The report of a table, or the bar of its check, or the form with what is wrong in it. `part=report` is the report alone."""
    if isinstance(outcome, Refusal):
        return _form(frame, settings, question, outcome)
    template = "datasets/_report.html" if part == "report" else "datasets/check.html"
    return frame.render(template, question=question, address=address(question), fresh=fresh, **_shown(outcome, issue))


def address(question: Question, **more: Any) -> str:
    """A question as the query of an address, defaults left out."""
    values = {"csv": question.csv, "image_root": question.image_root, "need_annotation": None if question.need_annotation else 0} | more
    return urlencode({name: value for name, value in values.items() if value is not None})


def _launch(checked: Checked) -> str:
    """The launch form with these tables filled in; the splits beside this one where it is one of them."""
    rows = {split.name: split.csv for split in checked.splits if split.rows}
    name = Path(checked.csv).stem
    train = rows.get("train", checked.csv) if name in SPLITS else checked.csv
    valid = (rows.get("valid") or rows.get("val")) if name in SPLITS else None
    named = {"csv_train": train, "csv_val": valid, "image_root": checked.question.image_root}
    return listing.address("/runs/new", **named)


def _shown(checked: Checked | None, issue: str) -> dict[str, Any]:
    if checked is None:
        return {"report": None}
    charts = {"words": histogram(checked.words), "references": histogram(checked.references)}
    return {"report": checked, "issues": issues(checked, issue), "unseen": unseen(checked), "launch": _launch(checked), **charts}


def _form(frame: Frame, settings: Settings, question: Question, refusal: Refusal | None = None) -> Response:
    return frame.render(
        "datasets/index.html", refusal.status if refusal else 200,
        question=question, refusal=refusal, used=tables.used(frame.session), found=tables.below(settings), address=address,
    )  # fmt: skip
