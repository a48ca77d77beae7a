"""The pages of checkpoints: the list, one of them, and several side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from app.access.permissions import READ, Launcher
from app.checkpoints import compare, exports, kept, lists, retention, routes, view
from app.checkpoints import service as checkpoints
from app.checkpoints.lists import Kind, Sort, Wanted
from app.checkpoints.routes import CheckpointDep
from app.deps import BellDep, SessionDep, StateDep, SweepDep
from app.errors import Invalid
from app.evaluations import service as evaluations
from app.i18n import _
from app.listing import BLANK_IS_NONE, address
from app.models import ENDED, Evaluation
from app.pages import FrameDep, redirect
from panollava.errors import BadInput
from panollava.metrics.report import Report
from panollava.stages import Stage

PER_PAGE = 50

router = APIRouter(prefix="/checkpoints", include_in_schema=False, dependencies=[READ])


@dataclass(frozen=True)
class View:
    """What the address of the list asks for, and the addresses one click away from it."""

    run: int | None = None
    stage: Stage | None = None
    kind: Kind | None = None
    sort: Sort = Sort.newest
    cursor: int | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.run, self.stage, self.kind, once=True)

    @property
    def is_filtered(self) -> bool:
        return any(each is not None for each in (self.run, self.stage, self.kind))

    @property
    def url(self) -> str:
        """The first page of this list."""
        return self.to()

    def sorted_by(self, sort: Sort) -> str:
        return self.to(sort=None if sort is Sort.newest else sort)

    def to(self, **changed: object) -> str:
        kept_ = {"run": self.run, "stage": self.stage, "kind": self.kind, "sort": None if self.sort is Sort.newest else self.sort}
        return address("/checkpoints", **kept_ | changed)


@router.get("")
def list_checkpoints(
    frame: FrameDep,
    run: Annotated[int | None, BLANK_IS_NONE] = None,
    stage: Annotated[Stage | None, BLANK_IS_NONE] = None,
    kind: Annotated[Kind | None, BLANK_IS_NONE] = None,
    sort: Annotated[Sort | None, BLANK_IS_NONE] = None,
    cursor: int | None = None,
    part: Literal["new"] | None = None,
    id: int = 0,
) -> Response:
    """The page; or how many checkpoints of this list were written after checkpoint `id`."""
    shown, session = View(run, stage, kind, sort or Sort.newest, cursor), frame.session
    if part == "new":
        return frame.render("checkpoints/_new.html", view=shown, newest=id, new=lists.newer(session, shown.wanted, id))
    newest = lists.newest(session)
    found = lists.page(session, shown.wanted, shown.sort, cursor, PER_PAGE + 1)
    after = found[PER_PAGE - 1].id if len(found) > PER_PAGE else None
    rows = kept.describe(session, found[:PER_PAGE])
    return frame.render("checkpoints/list.html", view=shown, rows=rows, newest=newest, new=0, after=after, sorts=Sort, kinds=Kind, most=view.MOST)


@router.get("/compare")
def compare_checkpoints(
    frame: FrameDep,
    ids: Annotated[list[str] | None, Query(description="Checkpoints: joined by commas, or several times.")] = None,
    base: int | None = None,
    every: Annotated[bool, Query(alias="all", description="Also settings that are the same.")] = False,
) -> Response:
    """Metrics, settings, architectures and evaluations of checkpoints, against `base` or the first of them."""
    sides = view.chosen(frame.session, ids or [])
    numbers = [each.row.id for each in sides]
    if base is not None and base not in numbers:
        raise Invalid(_("base: checkpoint {id} is not among those compared.").format(id=base))
    first = 0 if base is None else numbers.index(base)
    why_not = [view.why_not_comparable(each, sides[first]) for each in sides]
    evaluated = view.evaluations(frame.session, sides)

    def to(base: int, every: bool) -> str:
        return address("/checkpoints/compare", ids=",".join(map(str, numbers)), base=base if base != numbers[0] else None, all=1 if every else None)

    return frame.render(
        "checkpoints/compare.html", sides=sides, letters=view.LETTERS, base=first, every=every, why_not=why_not, to=to, absent=compare.ABSENT,
        measures=compare.measures([each.row.metrics for each in sides], first, [why is None for why in why_not]),
        settings=compare.lines([each.config for each in sides]),
        architecture=compare.lines([each.architecture for each in sides]),
        evaluated=[[(each, _report(each)) for each in of_one] for of_one in evaluated],
        together=[(Path(table).stem, f"/evals/compare?ids={','.join(map(str, of))}") for table, of in view.side_by_side(evaluated).items()],
    )  # fmt: skip


@router.get("/{checkpoint_id:int}")
def show_checkpoint(checkpoint_id: int, frame: FrameDep, part: Literal["export"] | None = None) -> Response:
    """The page; or what has come of the checkpoint's export."""
    shown = view.facts(frame.session, [checkpoint_id])[0]
    found = exports.find(frame.session, shown.row)
    exported: dict[str, Any] = {
        "id": shown.row.id, "run_id": shown.row.run_id, "can_export": not shown.gone, "ended": ENDED,
        "exported": routes.described(frame.session, found) if found else None,
    }  # fmt: skip
    if part:
        return frame.render("checkpoints/_export.html", **exported)
    evaluated = [(each, _report(each)) for each in view.evaluations(frame.session, [shown])[0]]
    return frame.render("checkpoints/show.html", shown=shown, lineage=view.lineage(frame.session, shown), evaluated=evaluated, **exported)


@router.post("/{checkpoint_id:int}/pin")
def pin_checkpoint(actor: Launcher, request: Request, checkpoint: CheckpointDep, session: SessionDep) -> Response:
    retention.pin(session, checkpoint, True)
    return redirect(request, f"/checkpoints/{checkpoint.id}")


@router.post("/{checkpoint_id:int}/unpin")
def unpin_checkpoint(actor: Launcher, request: Request, checkpoint: CheckpointDep, session: SessionDep) -> Response:
    retention.pin(session, checkpoint, False)
    return redirect(request, f"/checkpoints/{checkpoint.id}")


@router.post("/{checkpoint_id:int}/delete")
def delete_checkpoint(actor: Launcher, request: Request, checkpoint: CheckpointDep, session: SessionDep, sweep: SweepDep) -> Response:
    run_id = checkpoint.run_id
    sweep()
    retention.delete(session, checkpoint)
    return redirect(request, f"/runs/{run_id}?tab=checkpoints")


@router.post("/{checkpoint_id:int}/export")
def export_checkpoint(actor: Launcher, request: Request, checkpoint_id: int, state: StateDep, session: SessionDep, ring: BellDep) -> Response:
    gone = exports.look(state.reading, checkpoint_id)
    exported = exports.export(session, checkpoints.get(session, checkpoint_id), actor.name, lambda _export: gone)
    ring(exports.job_of(session, exported).devices)
    return redirect(request, f"/checkpoints/{checkpoint_id}")


@router.post("/{checkpoint_id:int}/export/stop")
def stop_export(actor: Launcher, request: Request, checkpoint: CheckpointDep, session: SessionDep) -> Response:
    exports.stop(session, exports.get(session, checkpoint), actor.name)
    return redirect(request, f"/checkpoints/{checkpoint.id}")


def _report(evaluation: Evaluation) -> Report | None:
    """The figures; None where there are none yet, or none that can be read: its own page says why."""
    try:
        return evaluations.report_of(evaluation)
    except BadInput:
        return None
