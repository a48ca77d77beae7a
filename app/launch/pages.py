"""The page on which runs are launched. Its form works without scripts; with them /runs/new/plan is asked while one types."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field
from sqlmodel import Session
from starlette.datastructures import FormData

from app import pages
from app.access.permissions import READ, Launcher
from app.artifacts import Notes
from app.deps import BellDep, SessionDep, SettingsDep, StateDep
from app.i18n import _, ngettext
from app.launch import data, fields, form, preview, starts, takes
from app.launch.form import Draft
from app.launch.preview import Error, Plan
from app.launch.sources import HUB_IDS, LOCAL
from app.pages import Frame, FrameDep, redirect
from app.runs import service as runs
from app.settings import Settings
from panollava.config import validated
from panollava.presets import STARTING_POINTS
from panollava.stages import RECIPES

router = APIRouter(prefix="/runs/new", include_in_schema=False, dependencies=[READ])


class Origin(BaseModel):
    """Where a form says that it started."""

    preset: str | None = None
    run_id: int | None = Field(None, alias="from")
    checkpoint_id: int | None = Field(None, alias="checkpoint")


async def posted(request: Request) -> FormData:
    return await request.form()


Posted = Annotated[FormData, Depends(posted)]


@router.get("")
def show_launch(frame: FrameDep, settings: SettingsDep, origin: Annotated[Origin, Query()]) -> Response:
    """The form, filled in from a preset, a run or a checkpoint, and over that with every setting that the query names."""
    draft = _draft(frame.session, origin, frame.request.query_params)
    return _render(frame, settings, draft, preview.plan(draft.request, _server(frame.request)))


@router.post("")
def launch_run(
    actor: Launcher, request: Request, posted: Posted, state: StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> Response:  # fmt: skip
    """Queue the run and go to its page; or the form again with what is wrong, or with `check` also with what is right."""
    with state.reading() as reading:  # files are looked at below; nobody should wait for that to write
        draft = _draft(reading, validated(Origin, posted), posted)
    plan = preview.plan(draft.request, _server(request), settings)
    wrong = bool(plan.errors or draft.errors)
    if wrong or "check" in posted or plan.asked is None:
        with state.reading() as reading:
            return _render(pages.frame(request, reading, actor), settings, draft, plan, 422 if wrong else 200, checked=True)
    key = draft.request_key(plan.asked)
    notes = Notes(plan.asked.init_from)
    run = runs.create(session, plan.asked, settings, actor.name, priority=draft.request.priority, request_key=key, read_note=notes)
    ring(run.config["devices"])
    return redirect(request, f"/runs/{run.id}")


@router.post("/plan")
def plan_run(_actor: Launcher, request: Request, posted: Posted, state: StateDep, settings: SettingsDep) -> dict[str, Any]:
    """What the form would do, for its script. The session is a reader's: nothing is written."""
    with state.reading() as session:
        draft = _draft(session, validated(Origin, posted), posted)
        plan = preview.plan(draft.request, _server(request), settings)
        offers = starts.offers(session, plan.asked, settings, draft.picked)
        figures = takes.told(takes.takes(session, plan, settings))
    return {
        "errors": [{"field": field, "anchor": anchor, "label": label, "message": message} for field, anchor, label, message in _told(draft, plan)],
        "changed": draft.changed,
        "differs": _differs(draft),
        "command": plan.command,
        "json": plan.json,
        "curl": plan.curl,
        "views": _views(plan, settings),
        "learning": _learning(plan),
        "takes": figures,
        "offers": {offer.path: offer.why_not for group in offers.values() for offer in group},
    }


def _draft(session: Session, origin: Origin, given: form.Given) -> Draft:
    return form.read(starts.choose(session, origin.preset, origin.run_id, origin.checkpoint_id), given)


def _server(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _render(frame: Frame, settings: Settings, draft: Draft, plan: Plan, status: int = 200, checked: bool = False) -> Response:
    """`checked`: files were looked at as well, so that no error means none."""
    offers = starts.offers(frame.session, plan.asked, settings, draft.picked)
    told = _told(draft, plan)
    page = frame.render(
        "runs/new.html",
        status,
        draft=draft,
        plan=plan,
        told=told,
        errors=_by_field(told),
        checked=checked,
        offers=offers,
        is_offered=any(offer.path == draft.picked for group in offers.values() for offer in group),
        presets=STARTING_POINTS,
        groups=fields.groups(),
        local_inputs=LOCAL,
        hub_ids=HUB_IDS,
        learning=_learning(plan),
        figures=takes.labels(),
        takes=takes.told(takes.takes(frame.session, plan, settings)),
        suggestions=data.suggestions(settings),
        differs=_differs(draft),
        views=_views(plan, settings),
    )
    page.headers["Cache-Control"] = "private, no-cache"  # kept for the way back, so that the form there has the key it had
    return page


Told = tuple[str, str, str, str]
"""An error as the page tells it: its field, the id of the element to go to, what the field is called, what is wrong."""


def _told(draft: Draft, plan: Plan) -> Sequence[Told]:
    return [_tell(draft, error) for error in dict.fromkeys((*draft.errors, *plan.errors))]


def _tell(draft: Draft, error: Error) -> Told:
    name, message = error
    if name == "priority":
        return name, "f-priority", _("Priority"), message
    known = fields.fields()
    while name and name not in known:
        name = name.rpartition(".")[0]  # `stage.0` is the business of `stage`
    if not name:
        return "", "", error[0], message
    field = known[name]
    return name, f"f-{draft.input(name)}", f"{field.label}, {field.stage}" if field.stage else field.label, message


def _by_field(told: Iterable[Told]) -> dict[str, str]:
    by_field: dict[str, str] = {}
    for name, _anchor, _label, message in told:
        by_field[name] = f"{by_field[name]}\n{message}" if name in by_field else message
    return by_field


def _differs(draft: Draft) -> str:
    count = len(draft.changed)
    return ngettext("{n} value differs from “{start}”", "{n} values differ from “{start}”", count).format(n=count, start=draft.start.title)


def _learning(plan: Plan) -> dict[str, str]:
    """By stage: what it minimises, and what learns. Which overlap loss it is cannot be told while the settings make no run."""
    return {
        stage: _("{loss} loss; learns {parts}").format(
            loss=plan.asked.loss(stage) if plan.asked else recipe.loss, parts=", ".join(sorted(recipe.trains))
        )
        for stage, recipe in RECIPES.items()
    }


def _views(plan: Plan, settings: Settings) -> str:
    """Empty while the settings make no ring of views."""
    if plan.asked is None:
        return ""
    count, tokens = plan.asked.views, preview.image_tokens(plan.asked, settings)
    said = ngettext("{n} view of every panorama", "{n} views of every panorama", count).format(n=count)
    return _("{views}, {n} image tokens").format(views=said, n=f"{tokens:,}") if tokens else said
