"""The page of the queue: what waits and why, moved up and down, paused and resumed, by plain forms."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from app.access.permissions import READ, Launcher
from app.deps import BellDep, SessionDep
from app.jobs import order, pauses, queue
from app.jobs import service as jobs
from app.jobs.routes import QueueName, Reason, ReorderRequest, move
from app.models import Job
from app.overview import service as overview
from app.pages import FrameDep, redirect

router = APIRouter(prefix="/queue", include_in_schema=False, dependencies=[READ])

ROWS = 200
PATH = "/queue"


def get_job(job_id: int, session: SessionDep) -> Job:
    return jobs.get(session, job_id)


JobDep = Annotated[Job, Depends(get_job, scope="function")]


@router.get("")
def show_queue(frame: FrameDep, part: Literal["jobs"] | None = None) -> Response:
    """The page, or its live part."""
    waiting = overview.queued(frame.session, ROWS)
    template = f"queue/_{part}.html" if part else "queue/show.html"
    return frame.render(template, queue=waiting, names=queue.names(frame.session), beside=_beside(waiting), everything=pauses.EVERYTHING)


def _beside(waiting: overview.Queue) -> dict[int, tuple[int | None, int | None]]:
    """For each job shown, those before and behind it in its own queue."""
    found: dict[int, tuple[int | None, int | None]] = {}
    for devices in {each.entry["devices"] for each in waiting.work}:
        ids = [each.entry["id"] for each in waiting.work if each.entry["devices"] == devices]
        found |= {id_: (before, after) for before, id_, after in zip([None, *ids], ids, [*ids[1:], None], strict=False)}
    return found


@router.post("/pause")
def pause_queue(
    actor: Launcher,
    request: Request,
    session: SessionDep,
    queue: Annotated[QueueName, Form()] = pauses.EVERYTHING,
    reason: Annotated[Reason, Form()] = "",
) -> Response:
    pauses.pause(session, actor.name, queue, reason.strip())
    return redirect(request, PATH)


@router.post("/resume")
def resume_queue(
    actor: Launcher, request: Request, session: SessionDep, ring: BellDep, queue: Annotated[QueueName, Query()] = pauses.EVERYTHING
) -> Response:
    for devices in pauses.resume(session, actor.name, queue):
        ring(devices)
    return redirect(request, PATH)


@router.post("/{job_id:int}/reorder")
def reorder_queue(
    actor: Launcher, request: Request, job: JobDep, session: SessionDep, before: int | None = None, after: int | None = None
) -> Response:
    move(session, job, actor.name, ReorderRequest(job_id=job.id, before=before, after=after))
    return redirect(request, PATH)


@router.post("/{job_id:int}/priority")
def prioritise_job(
    actor: Launcher, request: Request, job: JobDep, session: SessionDep,
    priority: Annotated[int, Form(ge=-order.MOST_PRIORITY, le=order.MOST_PRIORITY)],
) -> Response:  # fmt: skip
    order.prioritise(session, job, actor.name, priority)
    return redirect(request, PATH)
