"""REST: the check of a table by its path, at once or watched, and the pictures it names."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app import images
from app.access.permissions import READ
from app.datasets import service as datasets
from app.datasets.checks import Progress
from app.datasets.service import Checked, Question
from app.deps import SettingsDep, State, StateDep
from app.errors import AppError, Conflict, status_of
from app.i18n import _
from panollava.errors import BadInput

router = APIRouter(prefix="/datasets", tags=["datasets"], dependencies=[READ])


def question(
    csv: Annotated[str, Query(min_length=1, description="Path of the table, on the server and below one of its roots.")],
    image_root: Annotated[str | None, Query(description="Directory that `url` cells are relative to; else the table's own.")] = None,
    need_annotation: Annotated[bool, Query(description="Whether a row without an annotation is an error.")] = True,
) -> Question:
    return Question(csv=csv, image_root=image_root or None, need_annotation=need_annotation)


QuestionDep = Annotated[Question, Depends(question)]


async def result(request: Request, state: State, question: Question) -> Checked:
    """What comes of a check, which stops when the client goes away. Asynchronous, because no thread may wait for minutes."""
    async with aclosing(state.checks.watch(state.settings, question)) as watched:
        async for news in watched:
            if isinstance(news, Checked):
                return news
            if await request.is_disconnected():
                raise Conflict(_("Nobody waits for this check any more."))
    raise AssertionError


@router.get("/report")
async def check_dataset(request: Request, state: StateDep, question: QuestionDep) -> Checked:
    """Read the table and decode each of its images, which takes minutes for thousands of them. Hanging up stops it."""
    return await result(request, state, question)


@router.get("/report/stream", response_class=EventSourceResponse)
async def watch_check(state: StateDep, question: QuestionDep) -> AsyncIterator[ServerSentEvent]:
    """The same, watched: `waiting` while other checks are in the way, `progress` with images done and in all, then `report` or `problem`.

    It ends there. A client that connects again begins a new check.
    """
    last = None
    try:
        async with aclosing(state.checks.watch(state.settings, question)) as watched:
            async for news in watched:
                if news != last:
                    yield _event(news)
                last = news
    except (AppError, BadInput) as error:
        status = status_of(error)
        yield ServerSentEvent(data={"status": status, "detail": str(error)}, event="problem")


def _event(news: Progress | Checked) -> ServerSentEvent:
    if isinstance(news, Checked):
        return ServerSentEvent(raw_data=news.model_dump_json(), event="report")
    if news.is_waiting:
        return ServerSentEvent(data={"detail": _("Other checks are at work; this one begins when one of them has ended.")}, event="waiting")
    return ServerSentEvent(data={"done": news.done, "total": news.total}, event="progress")


@router.get("/image", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def show_image(
    request: Request,
    settings: SettingsDep,
    question: QuestionDep,
    url: Annotated[str, Query(description="As a cell of the table has it.")],
    width: images.Width = 1024,
) -> Response:
    """One of the panoramas that the table names, as a JPEG."""
    return images.answer(request, datasets.image(settings, question, url), width)
