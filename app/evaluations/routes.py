"""Evaluations over HTTP: ask for one, read its figures and answers, set several side by side."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app import images
from app.access.permissions import READ, Launcher
from app.artifacts import Notes
from app.deps import BellDep, Cursor, Limit, Page, SessionDep, SettingsDep, StateDep
from app.evaluations import panoramas, schemas
from app.evaluations import service as evaluations
from app.evaluations.schemas import EvaluationOut, EvaluationRequest
from app.models import Evaluation
from panollava.metrics.captions import Condition, Prediction
from panollava.metrics.compare import Comparison

router = APIRouter(tags=["evaluations"], dependencies=[READ])


def get_evaluation(evaluation_id: int, session: SessionDep) -> Evaluation:
    return evaluations.get(session, evaluation_id)


EvaluationDep = Annotated[Evaluation, Depends(get_evaluation, scope="function")]


@router.get("/evaluations")
def list_evaluations(
    session: SessionDep,
    run_id: Annotated[int | None, Query(description="Only of this run's checkpoints.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[EvaluationOut]:
    """Newest first."""
    rows = evaluations.page(session, run_id, cursor, limit)
    return Page[EvaluationOut].of(rows, limit, schemas.describe(session, rows))


@router.post("/evaluations", status_code=201)
def create_evaluation(
    actor: Launcher, body: EvaluationRequest, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> EvaluationOut:  # fmt: skip
    """Queue an evaluation. A checkpoint or table that cannot be used is refused here."""
    with state.reading() as reading:
        config = schemas.read(reading, body)
    notes = Notes(config.checkpoint)
    evaluation = evaluations.create(session, config, settings, actor.name, body.name, body.devices, body.priority, body.request_key, notes)
    ring(body.devices)
    return schemas.describe(session, [evaluation])[0]


@router.get("/evaluations/{evaluation_id}")
def show_evaluation(evaluation: EvaluationDep, session: SessionDep) -> EvaluationOut:
    """One evaluation, with its figures once it has succeeded."""
    return schemas.describe(session, [evaluation])[0]


@router.get("/evaluations/{evaluation_id}/predictions")
def list_predictions(
    evaluation: EvaluationDep,
    settings: SettingsDep,
    condition: Annotated[Condition | None, Query(description="Only answers to the image, or to one of the controls.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Prediction]:
    """Answers in the order in which they were given."""
    answers, next_cursor = evaluations.predictions(evaluation, cursor, limit, condition, settings.scratch)
    return Page[Prediction](items=answers, next_cursor=next_cursor)


@router.get("/evaluations/{evaluation_id}/image", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def show_evaluated_image(
    request: Request,
    evaluation: EvaluationDep,
    settings: SettingsDep,
    url: Annotated[str, Query(description="Of a question that the evaluation has answered.")],
    width: images.Width = images.WIDEST,
) -> Response:
    """A panorama that was asked about, as a JPEG."""
    return images.answer(request, panoramas.path_of(evaluation, url, settings), width)


@router.get("/comparisons")
def compare_evaluations(
    session: SessionDep,
    settings: SettingsDep,
    ids: Annotated[str, Query(pattern=r"^\d{1,9}(,\d{1,9})*$", description="Evaluations, joined by commas.")],
    base: Annotated[int | None, Query(description="What the differences are to; the first if not given.")] = None,
) -> Comparison:
    """Figures side by side on the same questions, with differences and their 95 % intervals."""
    return evaluations.compare(session, [int(each) for each in ids.split(",")], base, settings.scratch)
