"""The pages of evaluations: the list, the form for a new one, one of them, and several side by side."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response
from sqlmodel import Session

from app import deps, pages
from app.access.permissions import READ, Launcher
from app.deps import BellDep, Cursor, SessionDep, SettingsDep
from app.errors import AppError, Conflict, Forbidden, Invalid, NotFound, status_of
from app.evaluations import arms as arms_
from app.evaluations import chart, explorer, figures, forms, panoramas, samples, schemas
from app.evaluations import service as evaluations
from app.evaluations.arms import Arm
from app.evaluations.forms import Sent
from app.evaluations.routes import EvaluationDep
from app.evaluations.samples import Board, Compared
from app.evaluations.state import MOST, State, StateDep
from app.i18n import _
from app.models import ENDED, Evaluation, JobStatus
from app.pages import FrameDep, redirect
from app.settings import Settings
from panollava.errors import BadInput
from panollava.metrics.cider import FEW
from panollava.metrics.report import Report

router = APIRouter(prefix="/evals", include_in_schema=False, dependencies=[READ])

QUICK = 1000
"""Answers whose comparison takes a fraction of a second; a larger one comes after the page."""
MEASURES = figures.CAPTIONS | {"mean_length": _("words per answer")} | figures.TRAITS


@router.get("")
def list_evaluations(
    frame: FrameDep, cursor: Cursor = None, run: Annotated[int | None, Query()] = None, part: Literal["rows"] | None = None
) -> Response:
    rows = evaluations.page(frame.session, run, cursor, 50)
    shown = [(each, _report(row)) for each, row in zip(schemas.describe(frame.session, rows), rows, strict=True)]
    older = rows[-1].id if len(rows) == 50 else None
    return frame.render(f"evals/{'_rows' if part else 'list'}.html", shown=shown, run=run, cursor=cursor, older=older, ended=ENDED)


@router.get("/new")
def show_new_evaluation(frame: FrameDep, checkpoint: Annotated[int | None, Query()] = None) -> Response:
    return frame.render("evals/new.html", form=forms.blank(frame.session, checkpoint), controls=forms.CONTROLS)


@router.post("/new")
def create_evaluation(
    actor: Launcher, request: Request, sent: Annotated[Sent, Form()], state: deps.StateDep, session: SessionDep, settings: SettingsDep, ring: BellDep
) -> Response:  # fmt: skip
    """What is wrong is shown at its field, with everything else as it was."""
    try:
        evaluation = forms.create(session, state.reading, sent, settings, actor.name)
    except (AppError, BadInput) as error:
        status, frame = status_of(error), pages.frame(request, session, actor)
        return frame.render("evals/new.html", status, form=forms.refused(frame.session, sent, error), controls=forms.CONTROLS)
    ring(1)
    return redirect(request, f"/evals/{evaluation.id}")


@router.get("/{evaluation_id:int}")
def show_evaluation(evaluation: EvaluationDep, frame: FrameDep, part: Literal["now"] | None = None) -> Response:
    shown = schemas.describe(frame.session, [evaluation])[0]
    report = _report(evaluation)
    context: dict[str, Any] = {
        "evaluation": shown, "report": report, "diagnosed": figures.diagnosis_rows(report), "measures": MEASURES, "few": FEW, "ended": ENDED,
    }  # fmt: skip
    if part:
        return frame.render("evals/_now.html", **context)
    return frame.render("evals/show.html", others=_others(frame.session, [evaluation.id]), **context)


@router.get("/compare")
def compare_evaluations(
    frame: FrameDep, state: StateDep, settings: SettingsDep,
    part: Literal["metrics", "samples"] | None = None, wait: bool = False,
) -> Response:  # fmt: skip
    """The whole page, or the card of figures, or what changes with the question. The page does not wait for figures that take time."""
    arms = arms_.arms([evaluations.get(frame.session, each) for each in state.ids])
    base = state.ids.index(state.base)
    context: dict[str, Any] = {"state": state, "arms": arms, "base": arms[base], "part": part, "problem": None}
    try:
        compared = evaluations.side_by_side([arm.evaluation for arm in arms], base, settings.scratch)
        board = compared.board()
    except (BadInput, Conflict) as error:
        return frame.render("evals/compare.html", **context | {"problem": str(error)}, others=_others(frame.session, state.ids), most=MOST)
    if state.metric not in board.scores:
        raise Invalid(_("metric: these questions have no ground truth."))
    if part == "metrics":
        return frame.render("evals/_metrics.html", **context, **_metrics(compared, arms))
    context |= {"board": board} | _samples(board, arms, state, settings)
    if part == "samples":
        return frame.render("evals/_samples.html", **context)
    is_quick = wait or compared.is_at_hand or board.questions * len(arms) <= QUICK
    table = _metrics(compared, arms) if is_quick and len(arms) > 1 else {"comparison": None}
    return frame.render("evals/compare.html", others=_others(frame.session, state.ids), most=MOST, **context, **table)


def _report(evaluation: Evaluation) -> Report | str | None:
    """The figures, or why they cannot be shown: one bad file must not take a list away."""
    try:
        return evaluations.report_of(evaluation)
    except BadInput as error:
        return str(error)


def _others(session: Session, ids: Sequence[int]) -> list[Evaluation]:
    """What else could be set beside these: the newest that have succeeded."""
    rows = [each for each in evaluations.page(session, limit=200) if each.id not in ids and each.metrics is not None]
    jobs = evaluations.jobs_of(session, rows)
    return [each for each in rows if jobs[each.id].status is JobStatus.succeeded]


def _metrics(compared: Compared, arms: Sequence[Arm]) -> dict[str, Any]:
    comparison, reports = compared.comparison(), [arm.report for arm in arms]
    base = reports[compared.base]
    return {
        "comparison": comparison,
        "captions": figures.caption_rows(comparison),
        "traits": figures.trait_rows(comparison),
        "grounding": figures.grounding_rows(comparison, base.chance if base else {}),
        "controls": figures.control_rows(reports),
    }


def _samples(board: Board, arms: Sequence[Arm], state: State, settings: Settings) -> dict[str, Any]:
    base, other = state.ids.index(state.base), explorer.place(state, state.other)
    shown, rings = explorer.explore(board, state), arms_.rings(arms)
    ring = arms_.ring_of(rings, state.ring)
    curve = chart.curve(samples.differences(board, state.metric, base, other)) if other is not None else None
    return {
        "other": None if other is None else arms[other],
        "explorer": shown, "curve": curve, "low": samples.low(board, state.metric, base, other),
        "rings": rings, "ring": ring, "look": arms_.look(state, ring), "outline": panoramas.outline, "place": panoramas.place,
        "direction": panoramas.direction, "spelt": panoramas.spelt,
        "missing": _missing(arms[base].evaluation, shown.sample, settings), "metrics": list(board.scores),
    }  # fmt: skip


def _missing(evaluation: Evaluation, sample: explorer.Sample | None, settings: Settings) -> str | None:
    """Why there is no panorama to show beside the texts."""
    if sample is None:
        return None
    try:
        panoramas.path_of(evaluation, sample.question.url, settings)
    except (BadInput, Forbidden, NotFound) as error:
        return str(error)
    return None
