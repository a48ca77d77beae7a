"""`/metrics`, outside the API's prefix, where Prometheus looks. It needs a token like everything else: names of workers are nobody's business."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.access.permissions import READ
from app.deps import SessionDep, StateDep
from app.telemetry import service as telemetry

router = APIRouter(tags=["health"], dependencies=[READ])


@router.get("/metrics", response_class=Response)
def show_figures(session: SessionDep, state: StateDep) -> Response:
    """Figures for Prometheus; a scrape config names the token under `authorization: credentials`."""
    return Response(telemetry.exposition(session, state.figures.registry), media_type=CONTENT_TYPE_LATEST)
