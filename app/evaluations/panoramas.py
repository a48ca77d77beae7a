"""The panoramas that an evaluation asked about: their files, and where the views that the model was given look."""

from pathlib import Path

import numpy as np

from app import artifacts
from app.errors import NotFound
from app.evaluations import samples
from app.evaluations import service as evaluations
from app.i18n import _
from app.models import Evaluation
from app.paths import allowed
from app.settings import Settings
from panollava import views
from panollava.config import RunConfig, validated
from panollava.data.table import resolve_image
from panollava.views import Doubles, View

POINTS = 24
"""Points on each side of a footprint; its sides are curves on the map."""


def path_of(evaluation: Evaluation, url: str, settings: Settings) -> Path:
    """The file behind a question's url.

    Raises Conflict before there are answers, NotFound for a url that none of them is about, BadInput for a file that is not there,
    Forbidden for one outside the directories open to users.
    """
    if url not in samples.sheet(evaluations.predictions_path(evaluation, settings.scratch)).urls:
        raise NotFound(_("url: evaluation {id} asks nothing about {url!r}.").format(id=evaluation.id, url=url))
    root = evaluation.config.get("image_root")
    return allowed(settings, "url", str(resolve_image(url, Path(evaluation.config["csv"]), Path(root) if root else None)))


def ring_of(evaluation: Evaluation) -> tuple[View, ...]:
    """The views its model was given of every panorama. Raises BadInput when the checkpoint's note is gone and nothing says so any more."""
    note = artifacts.read_note(evaluation.config["checkpoint"])
    config = validated(RunConfig, note.config)
    return views.layout(config).views


def outline(view: View) -> str:
    """The footprint as a path on a map of 360 x 180 with longitude -180 at its left. One across the seam is drawn at both ends."""
    around = views.footprint(view, POINTS)
    x, y = np.unwrap(around[:, 0], period=360) + 180, 90 - around[:, 1]
    return " ".join(_path(x + turn, y) for turn in (-360, 0, 360) if (x + turn).max() > 0 and (x + turn).min() < 360)


def _path(x: Doubles, y: Doubles) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) + "Z"


def place(view: View) -> tuple[float, float]:
    """Where a view's number stands on the map, percent of width and height: in its middle but off the edges, that of the whole in a corner."""
    if view.fov == 360:
        return 3.0, 6.0
    across, down = (view.yaw + 180) % 360 / 3.6, 50 - view.pitch / 1.8
    return round(min(max(across, 3.0), 97.0), 2), round(min(max(down, 6.0), 94.0), 2)


def direction(view: View) -> str:
    """Where a view looks, in as few signs as fit on a button."""
    if view.fov == 360:
        return _("all")
    up = f" {'↑' if view.pitch > 0 else '↓'}{abs(view.pitch):.0f}°" if view.pitch else ""
    return f"{view.yaw:.0f}°{up}"


def spelt(view: View) -> str:
    """The same for those who hear it."""
    if view.fov == 360:
        return _("the whole panorama")
    right = _("{yaw}° to the right").format(yaw=f"{view.yaw:g}")
    if not view.pitch:
        return right
    way = _("{pitch}° up") if view.pitch > 0 else _("{pitch}° down")
    return f"{right}, {way.format(pitch=f'{abs(view.pitch):g}')}"
