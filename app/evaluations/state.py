"""What the address of a comparison says: which evaluations, which questions, where one looks. Every link of the page is made here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from fastapi import Depends, Query

from app.errors import Invalid
from app.evaluations.samples import Filter, Metric
from app.i18n import _
from app.listing import address, numbers

MOST = 6
"""Evaluations side by side; more columns than that nobody can read."""
WIDEST, NARROWEST, STEEPEST = 115.0, 25.0, 85.0
"""Limits of the viewer, degrees: field of view and pitch. static/js/pano.js has the same."""
LOOK: dict[str, Any] = {"yaw": None, "pitch": None, "fov": None, "view": None}


@dataclass(frozen=True)
class State:
    """The state of the page. `url` gives the address of any other state, defaults left out."""

    ids: tuple[int, ...]
    base: int
    other: int | None = None
    """Whose answers are held against the base's in the list; None where there is only one evaluation."""
    metric: Metric = Metric.cider
    filter: Filter = Filter.b_gt_a
    q: str = ""
    page: int = 1
    sample: int | None = None
    """Number of the question, from 1, in the order of the first evaluation."""
    ring: int = 0
    """Whose views are drawn."""
    view: int | None = None
    yaw: float | None = None
    pitch: float | None = None
    fov: float | None = None

    def url(self, **changes: Any) -> str:
        return address("/evals/compare", **replace(self, **changes).params())

    def to_sample(self, number: int) -> str:
        """Another question, seen from the front."""
        return self.url(sample=number, page=1, **LOOK)

    def to_list(self, **changes: Any) -> str:
        """Another list, at its first question."""
        return self.url(**{"sample": None, "page": 1} | LOOK | changes)

    def to_view(self, number: int) -> str:
        return self.url(**LOOK | {"view": number, "fov": self.fov})

    def to_base(self, evaluation: int) -> str:
        """The same question, with differences to another evaluation."""
        other = self.other if self.other != evaluation else _first_beside(self.ids, evaluation)
        return self.url(base=evaluation, other=other, ring=evaluation if self.ring == self.base else self.ring)

    def without(self, evaluation: int) -> str:
        return self._among([each for each in self.ids if each != evaluation])

    def params(self) -> dict[str, Any]:
        """Query parameters, those that say what goes without saying left out."""
        defaults = State(self.ids, self.ids[0], _first_beside(self.ids, self.base), ring=self.base)
        values = {name: getattr(self, name) for name in State.__dataclass_fields__ if getattr(self, name) != getattr(defaults, name)}
        look = {name: f"{values[name]:.10g}" for name in ("yaw", "pitch", "fov") if name in values}
        return {"ids": ",".join(map(str, self.ids))} | values | look

    def kept(self, *without: str) -> dict[str, Any]:
        """Parameters for the hidden fields of a form that sends the ones named."""
        return {name: value for name, value in self.params().items() if name not in without}

    def _among(self, ids: Sequence[int]) -> str:
        base = self.base if self.base in ids else ids[0]
        other = self.other if self.other in ids and self.other != base else _first_beside(ids, base)
        return self.url(ids=tuple(ids), base=base, other=other, ring=self.ring if self.ring in ids else base, **LOOK)

    @classmethod
    def read(cls, ids: Sequence[int], base: int | None, other: int | None, ring: int | None, **rest: Any) -> Self:
        """Raises Invalid for evaluations that are too many or not among those compared."""
        if not ids:
            raise Invalid(_("ids: name the evaluations to compare, joined by commas."))
        if len(ids) > MOST:
            raise Invalid(_("ids: {n} evaluations; at most {most} fit side by side.").format(n=len(ids), most=MOST))
        for name, value in {"base": base, "other": other, "ring": ring}.items():
            if value is not None and value not in ids:
                raise Invalid(_("{name}: evaluation {id} is not among those compared.").format(name=name, id=value))
        base = ids[0] if base is None else base
        if other is None or other == base:
            other = _first_beside(ids, base)
        return cls(tuple(ids), base, other, ring=base if ring is None else ring, **rest)


def _first_beside(ids: Sequence[int], base: int) -> int | None:
    return next((each for each in ids if each != base), None)


def _degrees(limit: float) -> Any:
    return Query(ge=-limit, le=limit, allow_inf_nan=False)


def state(
    ids: Annotated[list[str] | None, Query(description="Evaluations: joined by commas, or several times.")] = None,
    base: int | None = None,
    other: int | None = None,
    metric: Metric = Metric.cider,
    filter: Filter = Filter.b_gt_a,
    q: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    sample: Annotated[int | None, Query(ge=1, le=10**9)] = None,
    ring: int | None = None,
    view: Annotated[int | None, Query(ge=1, le=10**6)] = None,
    yaw: Annotated[float | None, _degrees(180)] = None,
    pitch: Annotated[float | None, _degrees(STEEPEST)] = None,
    fov: Annotated[float | None, Query(ge=NARROWEST, le=WIDEST)] = None,
) -> State:
    look = {"view": view, "yaw": yaw, "pitch": pitch, "fov": fov}
    return State.read(numbers(ids or ()), base, other, ring, metric=metric, filter=filter, q=q.strip(), page=page, sample=sample, **look)


StateDep = Annotated[State, Depends(state)]
