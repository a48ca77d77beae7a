"""The web application: its routers, its doorkeeper, its one event hub. `app.serve` runs it, tests and tools call `create_app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from app import db, health
from app.access import pages as access_pages
from app.access import routes as access
from app.access.permissions import READ
from app.again import Again
from app.checkpoints import pages as checkpoint_pages
from app.checkpoints import routes as checkpoints
from app.datasets import pages as dataset_pages
from app.datasets import routes as datasets
from app.deps import State
from app.evaluations import pages as evaluation_pages
from app.evaluations import routes as evaluations
from app.events import routes as events
from app.events.stream import Hub
from app.jobs import pages as queue_pages
from app.jobs import routes as jobs
from app.launch import pages as launch_pages
from app.outages import Guarded, Outages
from app.overview import pages as overview_pages
from app.pages import STATIC, SecurityHeaders, static_version
from app.problems import RESPONSES, handle_problems
from app.runs import routes as runs
from app.runs import stage_routes
from app.runs import verbs as run_verbs
from app.runs.page import pages as run_pages
from app.runs.page import verbs as run_page_verbs
from app.runs.table import pages as list_pages
from app.samples import routes as samples
from app.schema import routes as schema
from app.settings import Settings
from app.telemetry import routes as telemetry
from app.telemetry.requests import Figures, Watch
from panollava import __version__

PREFIX = "/api/v1"
_PAGES = (
    access_pages, overview_pages, queue_pages, list_pages, checkpoint_pages, launch_pages, run_pages, run_page_verbs,
    dataset_pages, evaluation_pages,
)  # fmt: skip
log = logging.getLogger(__name__)

LARGEST_BODY = 1 << 20
"""Bytes. A config is a few kilobytes; nothing is uploaded here."""


def create_app(settings: Settings) -> FastAPI:
    """An app on a database that is migrated already."""
    engine = db.engine(settings.database_url)
    reading, writing = db.session_factory(engine, read_only=True), db.session_factory(engine)
    watched = db.engine(settings.database_url)
    outages = Outages(db.session_factory(watched, read_only=True), settings.broker_url)
    hub = Hub(reading, settings.broker_url, outages)
    figures = Figures(streams=lambda: hub.clients, has_broker=lambda: "broker" not in outages.now())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(hub.run())
        watching = asyncio.create_task(outages.watch())
        for task in (running, watching):
            task.add_done_callback(_mourn)
        yield
        hub.close()
        watching.cancel()
        await asyncio.wait([running, watching])
        for each in (engine, watched):
            each.dispose()

    app = FastAPI(
        title="PanoLLaVA",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,  # below, behind a token like everything else
        redirect_slashes=False,
        max_body_size=LARGEST_BODY,
        responses=RESPONSES,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.panollava = State(settings, Guarded(reading, outages), Guarded(writing, outages), hub, figures, outages)
    app.add_middleware(Again)  # within all others
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.allowed_hosts, www_redirect=False)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(GZipMiddleware, minimum_size=1000)  # event streams it leaves alone
    app.add_middleware(Watch, figures=figures, prefix=PREFIX)  # around all others
    handle_problems(app)
    app.include_router(health.router)
    app.include_router(telemetry.router)
    app.include_router(_api(app))
    for domain in _PAGES:
        app.include_router(domain.router)
    app.mount(f"/static/{static_version()}", StaticFiles(directory=STATIC), name="static")
    return app


def _mourn(task: asyncio.Task[None]) -> None:
    """Streams end with their hub, notices of outages with their watch. Clients come back and learn nothing, so somebody has to say it."""
    if not task.cancelled() and (error := task.exception()):
        log.critical("The event hub or the watch over outages has ended; pages are not live until this server is restarted.", exc_info=error)


def _api(app: FastAPI) -> APIRouter:
    api = APIRouter(prefix=PREFIX)
    for domain in (runs, run_verbs, stage_routes, samples, checkpoints, evaluations, datasets, jobs, events, schema, access):
        api.include_router(domain.router)

    @api.get("/openapi.json", dependencies=[READ], include_in_schema=False)
    def show_openapi() -> dict[str, Any]:
        return app.openapi()

    return api
