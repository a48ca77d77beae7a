"""The evaluations of a comparison as its page shows them: each with a letter, a shape and a colour, and with the views its model was given."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.artifacts import Away
from app.evaluations import panoramas
from app.evaluations import service as evaluations
from app.evaluations.state import State
from app.i18n import _
from app.models import Evaluation
from panollava.errors import BadInput
from panollava.metrics.report import Report
from panollava.views import View

LETTERS = "ABCDEF"
SHAPES = ("square", "disc", "diamond", "triangle")


@dataclass(frozen=True)
class Arm:
    """One of the evaluations. `colour` is the number of a chart colour."""

    place: int
    evaluation: Evaluation

    @property
    def letter(self) -> str:
        return LETTERS[self.place]

    @property
    def shape(self) -> str:
        return SHAPES[self.place % len(SHAPES)]

    @property
    def colour(self) -> int:
        return self.place + 1

    @property
    def report(self) -> Report | None:
        return evaluations.report_of(self.evaluation)


@dataclass(frozen=True)
class Ring:
    """Views that some of the evaluations' models were given of every panorama; none where nothing says so any more."""

    arms: list[Arm]
    views: tuple[View, ...]
    problem: str | None

    @property
    def data(self) -> list[dict[str, Any]]:
        """For the viewer's script."""
        return [asdict(view) for view in self.views]

    @property
    def says(self) -> str:
        if self.problem:
            return self.problem
        tiles = [view for view in self.views if view.fov < 360]
        if not tiles:
            return _("The whole panorama was given to the model as one view.")
        if tiles[0].projection == "equirectangular":
            what = _("{n} crops of {fov}° and the full height were given to the model.")
        elif len(tiles) < len(self.views):
            what = _("The whole panorama and {n} views of {fov}° were given to the model.")
        else:
            what = _("{n} views of {fov}° were given to the model.")
        return what.format(n=len(tiles), fov=f"{tiles[0].fov:g}")


@dataclass(frozen=True)
class Look:
    """Where the viewer looks at first, degrees."""

    yaw: float
    pitch: float
    fov: float


def arms(rows: Sequence[Evaluation]) -> list[Arm]:
    return [Arm(place, each) for place, each in enumerate(rows)]


def rings(arms: Sequence[Arm]) -> list[Ring]:
    """Each ring once, with all whose models were given it."""
    found: dict[tuple[tuple[View, ...], str | None], list[Arm]] = {}
    for arm in arms:
        found.setdefault(_ring(arm.evaluation), []).append(arm)
    return [Ring(members, views, problem) for (views, problem), members in found.items()]


def ring_of(rings: Sequence[Ring], evaluation: int) -> Ring:
    return next(ring for ring in rings if any(arm.evaluation.id == evaluation for arm in ring.arms))


def look(state: State, ring: Ring) -> Look:
    """As the address says, else at the view it names, else to the front."""
    chosen = ring.views[state.view - 1] if state.view is not None and state.view <= len(ring.views) else View(0, 0, 90)
    yaw = 180 - (180 - chosen.yaw) % 360 if state.yaw is None else state.yaw
    return Look(yaw, chosen.pitch if state.pitch is None else state.pitch, 90.0 if state.fov is None else state.fov)


def _ring(evaluation: Evaluation) -> tuple[tuple[View, ...], str | None]:
    try:
        return panoramas.ring_of(evaluation), None
    except (BadInput, Away) as error:
        return (), _("Which views the model was given is not known: {reason}").format(reason=error)
