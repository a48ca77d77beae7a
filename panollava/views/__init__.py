"""Cut panoramas into views, and say where views see the same thing.

Pure geometry on arrays: no files, no model, no torch. A panorama is equirectangular and shows the whole sphere, whatever its aspect.
Which views there are: `panollava.layouts`.
"""

from panollava.layouts import Layout, View, layout, ring
from panollava.views.correspondence import correspond
from panollava.views.cutting import Cutter, Maps, project
from panollava.views.geometry import Doubles, Floats, Image, footprint, reference

__all__ = [
    "Cutter",
    "Doubles",
    "Floats",
    "Image",
    "Layout",
    "Maps",
    "View",
    "correspond",
    "footprint",
    "layout",
    "project",
    "reference",
    "ring",
]
