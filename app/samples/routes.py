"""Samples over HTTP: the answers themselves, and the panoramas they are about."""

from typing import Annotated, Self

from fastapi import APIRouter, Query, Request, Response

from app import images
from app.access.permissions import READ
from app.deps import Cursor, Limit, Page, Row, SessionDep, SettingsDep
from app.models import Sample
from app.runs.routes import RunDep
from app.samples import service as samples
from panollava.stages import Stage

router = APIRouter(prefix="/runs/{run_id}/samples", tags=["runs"], dependencies=[READ])


class SampleOut(Row):
    """One answer to one of the questions that are asked after every validation."""

    id: int
    stage: Stage
    job_id: int
    attempt: int
    step: int
    url: str
    query: str
    references: list[str]
    prediction: str

    @classmethod
    def of(cls, row: Sample, stage: Stage) -> Self:
        return cls.model_validate(row.model_dump() | {"stage": stage})


@router.get("")
def list_samples(run: RunDep, session: SessionDep, stage: Stage | None = None, cursor: Cursor = None, limit: Limit = 50) -> Page[SampleOut]:
    """Newest first, without those that a resumed attempt gave anew."""
    found = samples.page(session, run.id, stage, cursor, limit)
    return Page[SampleOut].of([row for row, _ in found], limit, [SampleOut.of(*each) for each in found])


@router.get("/image", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def show_sample_image(
    request: Request,
    run: RunDep,
    session: SessionDep,
    settings: SettingsDep,
    url: Annotated[str, Query(description="Of one of the run's samples.")],
    width: images.Width = images.WIDEST,
) -> Response:
    """A panorama that the model was asked about, as a JPEG."""
    return images.answer(request, samples.path_of(session, run, url, settings), width)
